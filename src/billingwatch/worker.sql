-- attend --
-- Held by the session while the process lives: how the fleet knows how many processors share its lanes.
SELECT pg_advisory_lock_shared(1112099150, 0), pg_backend_pid() AS pid;

-- end_frozen --
-- A processor that is stopped (SIGSTOP, a suspended machine) keeps its connections, and with them its lanes. Its attending session has
-- run no statement for $1 seconds, while one of a running processor runs one every few seconds. Ends that session and those of its lanes.
WITH attending AS (
    SELECT l.pid
    FROM pg_locks AS l
    JOIN pg_stat_activity AS s ON s.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.classid = 1112099150 AND l.objid = 0 AND l.objsubid = 2 AND l.granted
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.pid <> pg_backend_pid()
      AND s.state <> 'active'
      AND s.state_change < clock_timestamp() - make_interval(secs => $1)
)
SELECT a.pid, pg_terminate_backend(a.pid) AS ended, array_remove(array_agg(l.pid), NULL) AS lanes,
       count(pg_terminate_backend(l.pid)) AS lanes_ended
FROM attending AS a
LEFT JOIN pg_locks AS l ON l.locktype = 'advisory' AND l.classid = 1112099152 AND l.objid = a.pid::bigint::oid AND l.objsubid = 2
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
GROUP BY a.pid;

-- attendance --
SELECT count(*)
FROM pg_locks
WHERE locktype = 'advisory' AND classid = 1112099150 AND objid = 0 AND objsubid = 2 AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database());

-- own_lane --
-- The number of lanes is part of the key: processes that disagree about it do not block each other, and the claim's lock keeps them apart.
-- The shared lock names the attending session of the owner, for `end_frozen`.
SELECT CASE
    WHEN pg_try_advisory_lock(1112099151, $1::integer * 1000 + $2::integer) THEN pg_try_advisory_lock_shared(1112099152, $3)
    ELSE false
END;

-- disown_lane --
SELECT pg_advisory_unlock(1112099151, $1::integer * 1000 + $2::integer), pg_advisory_unlock_shared(1112099152, $3);
