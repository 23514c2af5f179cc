-- survey --
-- All that a run with nothing to do asks. If there is something to do, the session's advisory lock keeps a second run away; it is taken by a CTE
-- of its own so that it is taken once, not once a row.
WITH behind AS MATERIALIZED (
    SELECT t.tenant_id, t.name, t.schema_name, t.revision, t.views_digest
    FROM control.tenants AS t
    WHERE (NOT $3 AND (t.revision, t.views_digest) IS DISTINCT FROM ($1, $2) OR $3 AND t.revision = $1)
      AND ($4::text[] IS NULL OR t.name = ANY ($4))
),
control_plane AS MATERIALIZED (
    SELECT version_num AS revision FROM control.alembic_version
),
run AS MATERIALIZED (
    SELECT c.revision AS control_revision,
           CASE
               WHEN $6 OR c.revision = $5 AND NOT EXISTS (SELECT FROM behind) THEN NULL
               ELSE pg_try_advisory_lock(1112099156, 0)
           END AS alone
    FROM control_plane AS c
)
SELECT r.control_revision, r.alone, b.tenant_id, b.name, b.schema_name, b.revision, b.views_digest
FROM run AS r
LEFT JOIN behind AS b ON true
ORDER BY b.tenant_id;

-- unlock --
SELECT pg_advisory_unlock(1112099156, 0);

-- unknown_names --
SELECT n.name FROM unnest($1::text[]) AS n (name) WHERE NOT EXISTS (SELECT FROM control.tenants AS t WHERE t.name = n.name);

-- failures --
SELECT tenant_id, error FROM control.migration_failures;

-- claim --
-- The row is locked already, so the analysts are those that there are now: who makes one waits for this transaction.
WITH forgiven AS (DELETE FROM control.migration_failures WHERE tenant_id = $1)
UPDATE control.tenants AS t
SET revision = $3, views_digest = $4
WHERE t.tenant_id = $1 AND t.revision = $2
RETURNING EXISTS (SELECT FROM control.analysts AS a WHERE a.tenant_id = t.tenant_id) AS has_analysts;

-- record_failure --
INSERT INTO control.migration_failures (tenant_id, wanted, error)
SELECT t.tenant_id, $2, $3 FROM control.tenants AS t WHERE t.tenant_id = $1
ON CONFLICT ON CONSTRAINT migration_failures_pkey DO UPDATE
SET wanted = excluded.wanted, error = excluded.error, failed_at = excluded.failed_at;

-- make_durable --
-- Writes something, so that this commit waits for the disk; it takes with it all those before it that did not.
UPDATE control.alembic_version SET version_num = version_num;
