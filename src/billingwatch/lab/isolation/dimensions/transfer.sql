-- outside --
SELECT set_config('search_path', '{schema}', true), set_config('billingwatch.tenant', '{tenant}', true)

-- vacuum --
VACUUM;

-- size --
SELECT pg_database_size(current_database());
