-- places --
-- All that are there, not only those that the run provisioned; a schema that no tenant has is nobody's, 0.
SELECT coalesce(t.tenant_id, 0) AS tenant_id, coalesce(t.schema_name, n.nspname::text) AS schema_name
FROM control.tenants AS t
FULL JOIN (SELECT nspname FROM pg_namespace WHERE nspname LIKE 'tenant\_%') AS n ON n.nspname = t.schema_name;

-- stored_events --
SELECT event_id, deliveries FROM events;

-- charges --
SELECT event_id FROM charges;

-- pending_events --
SELECT tenant_id, event_id FROM control.pending_events;

-- dead_letters --
SELECT count(*) FROM control.dead_letters;
