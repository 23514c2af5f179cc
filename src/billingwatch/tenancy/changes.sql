-- announce_change --
-- The row becomes visible with the change itself, because it is written in the same transaction.
INSERT INTO control.tenant_changes (tenant_id) VALUES ($1);

-- find_changes --
-- Transaction ids are assigned before commit, so a change with a smaller id can become visible later. The
-- horizon is the oldest transaction that still runs: every change that becomes visible after this snapshot
-- has at least that id. $1 is the horizon of the previous poll, and $2 are the changes that the reader has
-- handled since then.
SELECT s.horizon, s.polled_at, c.change_id, c.transaction_id, c.tenant_id
FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon, clock_timestamp() AS polled_at) AS s
LEFT JOIN control.tenant_changes AS c ON c.transaction_id >= $1 AND c.change_id <> ALL ($2::bigint[]);

-- delete_old_changes --
DELETE FROM control.tenant_changes WHERE changed_at < now() - $1::interval;
