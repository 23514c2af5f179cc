-- let_commits_fly --
-- Of all connections that begin from now on.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database());
END
$$;
