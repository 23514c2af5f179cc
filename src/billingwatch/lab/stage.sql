-- let_commits_fly --
-- Of all connections that begin from now on.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database());
END
$$;

-- initialised --
SELECT to_regclass('control.isolation') IS NOT NULL;

-- roles --
SELECT r.rolname FROM pg_roles AS r JOIN control.isolation AS i ON starts_with(r.rolname, i.schema_name);
