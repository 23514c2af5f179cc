-- claim --
-- The tenant's oldest pending events, deleted with this transaction. The advisory lock keeps two visits of one tenant apart even while
-- processes disagree about who owns a lane; a visit that does not get it claims nothing.
WITH claimed AS (
    DELETE FROM control.pending_events AS p
    WHERE p.tenant_id = $1
      AND p.position IN (SELECT q.position FROM control.pending_events AS q WHERE q.tenant_id = $1 ORDER BY q.position LIMIT $2)
      AND (SELECT pg_try_advisory_xact_lock(1112099155, $1))
    RETURNING p.position, p.event_id, p.received_at
)
SELECT c.event_id, c.received_at, e.signed_at IS NULL AS replayed, e.payload
FROM claimed AS c
JOIN events AS e ON e.event_id = c.event_id
ORDER BY c.position;

-- bury --
INSERT INTO control.dead_letters (tenant_id, event_id, error)
SELECT $1, d.event_id, d.error
FROM unnest($2::text[], $3::text[]) AS d (event_id, error)
ON CONFLICT ON CONSTRAINT dead_letters_pkey DO UPDATE SET error = excluded.error, failed_at = excluded.failed_at;

-- tenants_with_work --
-- One index probe for each tenant that has pending events, however many events those are.
WITH RECURSIVE waiting AS (
    (SELECT p.tenant_id FROM control.pending_events AS p ORDER BY p.tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT p.tenant_id FROM control.pending_events AS p WHERE p.tenant_id > w.tenant_id ORDER BY p.tenant_id LIMIT 1)
    FROM waiting AS w
    WHERE w.tenant_id IS NOT NULL
)
SELECT found.tenant_id
FROM (
    SELECT w.tenant_id FROM waiting AS w WHERE w.tenant_id IS NOT NULL
    UNION ALL
    SELECT d.tenant_id FROM control.due_visits AS d WHERE d.due_at <= $1
    UNION ALL
    -- Later than any visit is planned: the clock was set back.
    SELECT d.tenant_id FROM control.due_visits AS d WHERE d.due_at > $2
) AS found
-- A tenant without a row was removed: a visit deletes what is left of it.
WHERE NOT EXISTS (SELECT FROM control.tenants AS t WHERE t.tenant_id = found.tenant_id AND t.status <> 'active');

-- forget_tenant --
DELETE FROM control.pending_events WHERE tenant_id = $1;

-- retry_dead_letters --
WITH retried AS (
    DELETE FROM control.dead_letters WHERE tenant_id = $1 AND ($2::text IS NULL OR event_id = $2) RETURNING event_id
)
INSERT INTO control.pending_events (tenant_id, event_id, received_at)
SELECT $1, event_id, $3 FROM retried;

-- list_dead_letters --
SELECT event_id, error, failed_at FROM control.dead_letters WHERE tenant_id = $1 ORDER BY failed_at DESC, event_id;
