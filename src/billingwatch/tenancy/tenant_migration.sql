-- claim --
-- The row is locked already, so the analysts are those that there are now: who makes one waits for this transaction.
WITH forgiven AS (DELETE FROM control.migration_failures WHERE tenant_id = $1)
UPDATE control.tenants AS t
SET revision = $3, views_digest = $4
WHERE t.tenant_id = $1 AND t.revision = $2
RETURNING EXISTS (SELECT FROM control.analysts AS a WHERE a.tenant_id = t.tenant_id) AS has_analysts;
