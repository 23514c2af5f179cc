-- lock_tenant --
-- Of two who change the same setting at once, the second builds on what the first made of it.
SELECT FROM control.tenants WHERE tenant_id = $1 FOR NO KEY UPDATE;

-- list_settings --
SELECT d.detector, d.active, d.thresholds::text AS thresholds FROM control.detector_settings AS d WHERE d.tenant_id = $1 ORDER BY d.detector;

-- get_setting --
SELECT d.detector, d.active, d.thresholds::text AS thresholds FROM control.detector_settings AS d WHERE d.tenant_id = $1 AND d.detector = $2;

-- put_setting --
INSERT INTO control.detector_settings (tenant_id, detector, active, thresholds)
VALUES ($1, $2, $3, $4::text::jsonb)
ON CONFLICT ON CONSTRAINT detector_settings_pkey DO UPDATE
SET active = excluded.active, thresholds = excluded.thresholds, updated_at = excluded.updated_at;

-- delete_setting --
DELETE FROM control.detector_settings WHERE tenant_id = $1 AND detector = $2;

-- list_mutes --
SELECT m.mute_id, m.detector, m.subject, m.since, m.until, m.reason, m.created_at
FROM control.mutes AS m
WHERE m.tenant_id = $1
ORDER BY m.mute_id;

-- count_mutes --
SELECT count(*) FROM control.mutes WHERE tenant_id = $1;

-- insert_mute --
INSERT INTO control.mutes (tenant_id, detector, subject, since, until, reason)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING mute_id, detector, subject, since, until, reason, created_at;

-- delete_mute --
DELETE FROM control.mutes
WHERE tenant_id = $1 AND mute_id = $2
RETURNING mute_id, detector, subject, since, until, reason, created_at;
