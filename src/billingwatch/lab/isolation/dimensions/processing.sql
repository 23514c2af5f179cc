-- forget --
-- What other measurements recorded is not processed beside this one.
TRUNCATE control.pending_events;

-- judged --
-- The history counts as judged, which for 90 days of it would take each tenant half a second some minutes after its first event.
INSERT INTO control.due_visits (tenant_id, kind, due_at, since)
SELECT t.tenant_id, 'evaluate', now() + interval '1 day', date_trunc('hour', now())
FROM control.tenants AS t
ON CONFLICT ON CONSTRAINT due_visits_pkey DO UPDATE SET due_at = excluded.due_at, since = excluded.since;
