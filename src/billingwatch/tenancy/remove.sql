-- suspend --
UPDATE control.tenants SET status = 'removing' WHERE tenant_id = $1;

-- leave --
-- Out of the tenant's scope, into the control plane, within one transaction.
SELECT set_config('role', 'none', true), set_config('billingwatch.tenant', '', true), set_config('search_path', 'pg_catalog', true);

-- delete_pending --
DELETE FROM control.pending_events WHERE tenant_id = $1;

-- delete_tenant --
-- Keys, secrets, settings, mutes, dead letters and the audit log go with it.
DELETE FROM control.tenants WHERE tenant_id = $1;

-- transaction --
SELECT pg_current_xact_id()::text::bigint;

-- older_ended --
-- Whether every transaction that began before that one has ended, as far as it wrote something.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint > $1;
