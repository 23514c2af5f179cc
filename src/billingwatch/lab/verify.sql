-- tenant_schemas --
-- All that are there, not only those that the run provisioned.
SELECT nspname AS schema_name FROM pg_namespace WHERE nspname LIKE 'tenant\_%';

-- stored_events --
SELECT event_id, deliveries FROM events;

-- charges --
SELECT event_id FROM charges;

-- pending_events --
SELECT t.schema_name, p.event_id FROM control.pending_events AS p JOIN control.tenants AS t ON t.tenant_id = p.tenant_id;

-- dead_letters --
SELECT count(*) FROM control.dead_letters;
