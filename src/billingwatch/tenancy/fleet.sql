-- record_failure --
INSERT INTO control.migration_failures (tenant_id, wanted, error)
SELECT t.tenant_id, $2, $3 FROM control.tenants AS t WHERE t.tenant_id = $1
ON CONFLICT ON CONSTRAINT migration_failures_pkey DO UPDATE
SET wanted = excluded.wanted, error = excluded.error, failed_at = excluded.failed_at;

-- make_durable --
-- Writes something, so that this commit waits for the disk; it takes with it all those before it that did not.
UPDATE control.alembic_version SET version_num = version_num;
