-- a_backend --
SELECT pid
FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'billingwatch ingest%' AND pid <> pg_backend_pid()
LIMIT 1;

-- end_backends --
-- The bench's own connections stay.
SELECT count(pg_terminate_backend(pid))
FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'billingwatch %' AND application_name <> 'billingwatch bench';

-- lock_events --
LOCK TABLE events IN ACCESS EXCLUSIVE MODE;
