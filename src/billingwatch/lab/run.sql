-- vacuum --
-- What provisioning leaves to autovacuum is done before anything is measured, not beside it a minute later.
VACUUM (ANALYZE) pg_catalog.pg_attrdef, pg_catalog.pg_attribute, pg_catalog.pg_class, pg_catalog.pg_constraint, pg_catalog.pg_depend,
    pg_catalog.pg_description, pg_catalog.pg_index, pg_catalog.pg_namespace, pg_catalog.pg_rewrite, pg_catalog.pg_shdepend,
    pg_catalog.pg_statistic, pg_catalog.pg_type, control.tenants, control.signing_secrets, control.api_keys;

-- checkpoint --
-- What provisioning wrote is not charged to the first events.
CHECKPOINT;

-- version --
SELECT current_setting('server_version');

-- backends --
SELECT pid, application_name
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
ORDER BY application_name;
