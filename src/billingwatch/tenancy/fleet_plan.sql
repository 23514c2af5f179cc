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
