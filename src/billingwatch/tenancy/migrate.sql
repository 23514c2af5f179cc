-- revision --
SELECT version_num FROM control.alembic_version;

-- initialised --
SELECT to_regclass('control.alembic_version') IS NOT NULL;

-- knows_isolation --
SELECT to_regclass('control.isolation') IS NOT NULL;

-- lock --
-- One process at a time sets up or migrates.
SELECT pg_advisory_xact_lock(hashtextextended('billingwatch control plane', 0));

-- set_revision --
UPDATE control.alembic_version SET version_num = $1;

-- tenants_behind --
SELECT tenant_id, name, schema_name, revision
FROM control.tenants
WHERE (revision, views_digest) IS DISTINCT FROM ($1, $2)
ORDER BY tenant_id;

-- claim_tenant --
-- Of two runs at once, one waits here for the other, and then finds that nothing is left to do.
SELECT revision
FROM control.tenants
WHERE tenant_id = $1 AND (revision, views_digest) IS DISTINCT FROM ($2, $3)
FOR NO KEY UPDATE;

-- count_tenants_behind --
SELECT count(*) FROM control.tenants WHERE (revision, views_digest) IS DISTINCT FROM ($1, $2);

-- set_tenant_revision --
UPDATE control.tenants SET revision = $2, views_digest = $3 WHERE tenant_id = $1;
