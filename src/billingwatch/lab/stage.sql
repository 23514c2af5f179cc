-- let_commits_fly --
-- Of all connections that begin from now on.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database());
END
$$;

-- roles --
-- Analysts, and in row isolation the roles of the shared schema; the one that owns tables cannot be dropped before its database.
SELECT quote_ident(role) AS role
FROM (
    SELECT role_name AS role FROM control.analysts
    UNION ALL
    SELECT schema_name || suffix FROM control.isolation, unnest(ARRAY['', '_recorder', '_analysts', '_reader']) AS s (suffix) WHERE kind = 'row'
) AS r
WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = role);
