-- locked_schemas --
-- Those whose events cannot be written: somebody holds a lock that conflicts with writing, or waits for one, behind whom writers wait.
SELECT DISTINCT n.nspname AS schema_name
FROM pg_locks AS l
JOIN pg_class AS c ON c.oid = l.relation
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE l.locktype = 'relation'
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    AND c.relname = 'events'
    AND n.nspname = ANY ($1::text[]);
