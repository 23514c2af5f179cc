-- record_events --
-- The function is the control plane's (its newest text in revision 0005); with row isolation, that of tenancy/shared.sql.
-- Nobody's lock keeps a lane waiting for longer than $15 (text with its unit): see locked.
WITH patience AS MATERIALIZED (SELECT set_config('lock_timeout', $15, true))
SELECT control.record_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) FROM patience;

-- record_body --
-- The function is in the control plane's revision 0006; with row isolation, that of tenancy/shared.sql.
WITH patience AS MATERIALIZED (SELECT set_config('lock_timeout', $14, true))
SELECT control.record_body($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) FROM patience;
