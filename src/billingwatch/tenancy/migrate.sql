-- revision --
SELECT version_num FROM control.alembic_version;

-- initialised --
SELECT to_regclass('control.alembic_version') IS NOT NULL;

-- knows_isolation --
SELECT to_regclass('control.isolation') IS NOT NULL;

-- lock --
-- One process at a time sets up or migrates.
SELECT pg_advisory_xact_lock(hashtextextended('billingwatch control plane', 0));

-- alone --
-- No run over the fleet is under way; see fleet_plan's survey.
SELECT pg_try_advisory_xact_lock(1112099156, 0);

-- wait_briefly --
-- Whatever waits behind a migration that waits for a lock is the service.
SET LOCAL lock_timeout = '500ms';

-- set_revision --
UPDATE control.alembic_version SET version_num = $1;

-- tenants_by_revision --
SELECT revision, count(*) AS tenants
FROM control.tenants
WHERE (revision, views_digest) IS DISTINCT FROM ($1, $2)
GROUP BY revision;
