-- lock_tenant --
-- Changes of one tenant happen one after another.
SELECT t.tenant_id, t.name, t.status, t.paused_at,
       (SELECT count(*) FROM control.pending_events AS p WHERE p.tenant_id = t.tenant_id) AS pending
FROM control.tenants AS t
WHERE t.name = $1
FOR NO KEY UPDATE OF t;

-- pause --
-- If no visit has handled the time of the previous pause, both count as one pause. Otherwise its anomalies
-- would become historical.
-- Detectors of time are evaluated once an hour, so two hours are enough for them.
UPDATE control.tenants AS t
SET status = 'paused',
    resumed_at = NULL,
    paused_at = CASE
        WHEN t.resumed_at > $2::timestamptz - interval '2 hours'
          OR EXISTS (SELECT FROM control.pending_events AS p WHERE p.tenant_id = t.tenant_id AND p.received_at <= t.resumed_at)
        THEN t.paused_at
        ELSE $2::timestamptz
    END
WHERE t.tenant_id = $1
RETURNING t.paused_at;

-- resume --
UPDATE control.tenants SET status = 'active', resumed_at = greatest($2, paused_at) WHERE tenant_id = $1;

-- rotate_token --
UPDATE control.tenants AS t
SET previous_token_hash = CASE WHEN $3::interval > interval '0' THEN t.webhook_token_hash END,
    previous_token_until = CASE WHEN $3::interval > interval '0' THEN clock_timestamp() + $3::interval END,
    webhook_token_hash = $2
WHERE t.tenant_id = $1
RETURNING t.previous_token_until;
