-- checkpoint --
-- What provisioning wrote is not charged to the first events.
CHECKPOINT;

-- backend --
SELECT pg_backend_pid();

-- version --
SELECT current_setting('server_version');

-- backends --
SELECT pid, application_name
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
ORDER BY application_name;
