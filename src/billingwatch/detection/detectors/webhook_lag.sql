-- candidates --
-- The least that thresholds may be: two of three.
SELECT FROM events AS e
WHERE e.received_at > look.since - interval '3 days' AND e.received_at <= look.until
  AND (e.received_at - e.signed_at >= interval '5 s' OR e.signed_at - e.occurred_at >= interval '30 s')
OFFSET 1

-- incidents --
-- $1 since, $2 until, $3 window, $4 sample, $5 overtaken by, $6 minimum events, $7 Stripe's median, $8 Stripe's p90, $9 network's median,
-- $10 network's p90 (seconds), $11 quiet, $12 evidence limit, $13 fewest slow ones for a p90,
-- $14 how far back few events are sought, $15 what a restart cannot explain.
WITH measured AS MATERIALIZED (
    SELECT i.instant, d.connected, p.part, count(*) AS received,
           count(*) FILTER (WHERE p.tried_before) AS tried_before,
           count(*) FILTER (WHERE NOT p.tried_before) AS samples,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY p.seconds) FILTER (WHERE NOT p.tried_before) AS median,
           percentile_cont(0.9) WITHIN GROUP (ORDER BY p.seconds) FILTER (WHERE NOT p.tried_before) AS p90,
           count(*) FILTER (WHERE NOT p.tried_before AND p.seconds >= CASE p.part WHEN 'stripe' THEN $8::int ELSE $10::int END) AS slow,
           max(d.occurred_at) FILTER (WHERE p.late) - min(d.occurred_at) FILTER (WHERE p.late) AS slow_for,
           (array_agg(d.event_id ORDER BY p.seconds DESC, d.event_id) FILTER (WHERE NOT p.tried_before))[:$12::int] AS event_ids
    FROM generate_series($1::timestamptz, $2::timestamptz, interval '1 hour') AS i (instant)
    CROSS JOIN LATERAL (
        SELECT s.event_id, s.connected, s.occurred_at, s.signed_at, s.received_at,
               max(s.occurred_at) OVER (
                   PARTITION BY s.connected ORDER BY s.received_at, s.event_id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
               ) AS newest_at
        FROM (
            (
                SELECT e.event_id, e.account IS NOT NULL AS connected, e.occurred_at, e.signed_at, e.received_at
                FROM events AS e
                WHERE e.received_at > i.instant - $3::interval AND e.received_at <= i.instant
                  -- A test clock may stand in the future, which is no time to measure from.
                  AND e.signed_at IS NOT NULL AND e.occurred_at <= e.signed_at + $5::interval
                ORDER BY e.received_at DESC, e.event_id DESC
                LIMIT $4
            )
            UNION
            -- Where few events arrive, those before count, too.
            (
                SELECT e.event_id, e.account IS NOT NULL AS connected, e.occurred_at, e.signed_at, e.received_at
                FROM events AS e
                WHERE e.received_at > i.instant - $14::interval AND e.received_at <= i.instant
                  AND e.signed_at IS NOT NULL AND e.occurred_at <= e.signed_at + $5::interval
                ORDER BY e.received_at DESC, e.event_id DESC
                LIMIT $6
            )
        ) AS s
    ) AS d
    CROSS JOIN LATERAL (
        SELECT l.part, l.seconds, l.tried_before, NOT l.tried_before AND l.seconds >= l.most AS late
        FROM (
            VALUES ('stripe', extract(epoch FROM d.signed_at - d.occurred_at)::float8, d.occurred_at < d.newest_at - $5::interval, $7::int),
                   ('network', extract(epoch FROM d.received_at - d.signed_at)::float8, false, $9::int)
        ) AS l (part, seconds, tried_before, most)
    ) AS p
    GROUP BY i.instant, d.connected, p.part
),
marks AS (
    SELECT m.instant, m.connected, m.part, m.received, m.tried_before, m.samples, m.median, m.p90, m.event_ids, g.excess,
           lag(m.instant) OVER (PARTITION BY m.connected, m.part ORDER BY m.instant) + $11::interval < m.instant AS after_quiet
    FROM measured AS m
    -- One or two that were tried before are a tenth of few.
    CROSS JOIN LATERAL (SELECT CASE WHEN m.slow >= $13 THEN m.p90 END AS p90) AS tail
    CROSS JOIN LATERAL (
        SELECT CASE m.part WHEN 'stripe' THEN greatest(m.median / $7::int, tail.p90 / $8::int)
                           ELSE greatest(m.median / $9::int, tail.p90 / $10::int) END AS excess
    ) AS g
    -- What happens within minutes of each other is held up by one restart of ours.
    WHERE m.samples >= $6 AND g.excess >= 1 AND m.slow_for >= $15::interval
),
numbered AS MATERIALIZED (
    SELECT m.instant, m.connected, m.part, m.received, m.tried_before, m.samples, m.median, m.p90, m.event_ids, m.excess,
           count(*) FILTER (WHERE m.after_quiet) OVER (PARTITION BY m.connected, m.part ORDER BY m.instant) AS number
    FROM marks AS m
),
islands AS (
    SELECT n.connected, n.part, n.number, min(n.instant) AS opened_at, max(n.instant) AS last_seen_at
    FROM numbered AS n
    GROUP BY n.connected, n.part, n.number
)
SELECT i.connected, i.part, i.opened_at, i.last_seen_at, p.instant AS peak_at, p.received, p.tried_before, p.samples, p.median, p.p90,
       p.event_ids, p.excess
FROM islands AS i
CROSS JOIN LATERAL (
    SELECT n.instant, n.received, n.tried_before, n.samples, n.median, n.p90, n.event_ids, n.excess
    FROM numbered AS n
    WHERE n.connected = i.connected AND n.part = i.part AND n.number = i.number
    ORDER BY n.excess DESC, n.instant
    LIMIT 1
) AS p
ORDER BY i.opened_at, i.connected, i.part
