-- candidates --
-- The least that a threshold may be.
SELECT FROM events AS e
WHERE e.received_at > look.since - look.quiet AND e.received_at <= look.until AND e.deliveries >= 3

-- incidents --
-- $1 since, $2 until, $3 a day, $4 how far an hour looks back, $5 what is further apart are two storms, $6 minimum deliveries,
-- $7 minimum events, $8 minimum deliveries of one, $9 evidence limit.
WITH repeated AS MATERIALIZED (
    SELECT e.event_id, e.type, e.account IS NOT NULL AS connected, e.received_at, e.last_received_at, e.deliveries,
           date_trunc('hour', e.received_at - interval '1 microsecond', 'UTC') + interval '1 hour' AS begins_at,
           date_trunc('hour', least(e.last_received_at, e.received_at + $3::interval) - interval '1 microsecond', 'UTC')
               + interval '1 hour' AS ends_at
    FROM events AS e
    WHERE e.received_at > $1::timestamptz - $4::interval - $3::interval AND e.received_at <= $2::timestamptz
      AND e.deliveries >= $6 AND e.disposition <> 'ignored'
),
counted AS (
    SELECT r.event_id, r.connected, r.received_at, r.begins_at, r.ends_at, r.deliveries,
           count(*) OVER (PARTITION BY r.connected ORDER BY r.received_at RANGE BETWEEN $3::interval PRECEDING AND CURRENT ROW) AS events
    FROM repeated AS r
),
marks AS (
    SELECT c.connected, c.received_at, c.event_id, c.begins_at, c.ends_at,
           max(c.ends_at) OVER (
               PARTITION BY c.connected ORDER BY c.received_at, c.event_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
           ) + $5::interval < c.begins_at AS after_quiet
    FROM counted AS c
    WHERE c.received_at > $1::timestamptz - $4::interval AND (c.events >= $7 OR c.deliveries >= $8)
),
numbered AS (
    SELECT m.connected, m.received_at, m.begins_at, m.ends_at,
           count(*) FILTER (WHERE m.after_quiet) OVER (PARTITION BY m.connected ORDER BY m.received_at, m.event_id) AS number
    FROM marks AS m
),
islands AS (
    SELECT n.connected, n.number, min(n.begins_at) AS opened_at, max(n.ends_at) AS last_seen_at,
           min(n.received_at) AS first_at, max(n.received_at) AS last_at
    FROM numbered AS n
    GROUP BY n.connected, n.number
)
SELECT i.connected, i.opened_at, i.last_seen_at, e.events, e.deliveries, e.most, e.first_received_at, e.last_received_at, e.event_ids, (
    SELECT jsonb_object_agg(t.type, t.events) FROM (
        SELECT r.type, count(*) AS events FROM repeated AS r
        WHERE r.connected = i.connected AND r.received_at BETWEEN i.first_at - $3::interval AND i.last_at
        GROUP BY r.type
    ) AS t
) AS types
FROM islands AS i
CROSS JOIN LATERAL (
    SELECT count(*) AS events, sum(r.deliveries)::bigint AS deliveries, max(r.deliveries) AS most,
           min(r.received_at) AS first_received_at, max(r.last_received_at) AS last_received_at,
           (array_agg(r.event_id ORDER BY r.deliveries DESC, r.event_id))[:$9::int] AS event_ids
    FROM repeated AS r
    WHERE r.connected = i.connected AND r.received_at BETWEEN i.first_at - $3::interval AND i.last_at
) AS e
ORDER BY i.opened_at, i.connected
