-- attend --
-- Held by the session while the process lives: how the fleet knows how many processors share its lanes.
SELECT pg_advisory_lock_shared(1112099150, 0);

-- attendance --
SELECT count(*)
FROM pg_locks
WHERE locktype = 'advisory' AND classid = 1112099150 AND objid = 0 AND objsubid = 2 AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database());

-- own_lane --
-- The number of lanes is part of the key: processes that disagree about it do not block each other, and the claim's lock keeps them apart.
SELECT pg_try_advisory_lock(1112099151, $1::integer * 1000 + $2::integer);

-- disown_lane --
SELECT pg_advisory_unlock(1112099151, $1::integer * 1000 + $2::integer);
