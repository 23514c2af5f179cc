-- candidates --
-- Silent, or silent just before: then an event may have ended what is open. Longer looks are rare, and searched.
SELECT
WHERE EXISTS (SELECT FROM events AS e WHERE e.received_at <= look.until - interval '21 days')
  AND (
      look.since < look.until
      OR NOT EXISTS (
          SELECT FROM events AS e
          WHERE e.received_at > look.since - interval '1 hour' AND e.received_at <= look.since
            AND e.signed_at IS NOT NULL AND e.disposition <> 'ignored'
      )
      OR NOT EXISTS (
          SELECT FROM events AS e
          WHERE e.received_at > look.since - interval '2 hours' AND e.received_at <= look.since - interval '1 hour'
            AND e.signed_at IS NOT NULL AND e.disposition <> 'ignored'
      )
  )

-- incidents --
-- $1 since, $2 until, $3 minimum silence, $4 bursts, $5 baseline weeks, $6 weeks needed, $7 slot, $8 most steps.
-- Arrivals are walked one by one along the index, those of one moment in one step: a replay records hundreds with one time.
WITH silences AS MATERIALIZED (
    SELECT DISTINCT h.received_at AS silent_since, h.event_id
    FROM generate_series($1::timestamptz, $2::timestamptz, interval '1 hour') AS i (instant)
    CROSS JOIN LATERAL (
        WITH RECURSIVE back AS (
            (
                SELECT e.received_at, e.event_id, e.signed_at IS NOT NULL AND e.disposition <> 'ignored' AS heard, 1 AS step
                FROM events AS e
                -- Longer than a week is not waited for. What is silent for longer began to be an anomaly at an earlier instant.
                WHERE e.received_at <= i.instant AND e.received_at > i.instant - interval '8 days'
                ORDER BY e.received_at DESC, e.event_id DESC
                LIMIT 1
            )
            UNION ALL
            SELECT n.received_at, n.event_id, n.heard, b.step + 1
            FROM back AS b
            CROSS JOIN LATERAL (
                SELECT e.received_at, e.event_id, e.signed_at IS NOT NULL AND e.disposition <> 'ignored' AS heard
                FROM events AS e
                WHERE e.received_at < b.received_at AND e.received_at > i.instant - interval '8 days'
                ORDER BY e.received_at DESC, e.event_id DESC
                LIMIT 1
            ) AS n
            WHERE NOT b.heard AND b.step < $8
        )
        SELECT b.received_at, b.event_id FROM back AS b WHERE b.heard
    ) AS h
    WHERE h.received_at <= i.instant - $3::interval
),
-- For each week before: how long after the same minute of the week the last of so many bursts arrived.
rhythm AS (
    SELECT s.silent_since, s.event_id,
           percentile_disc(0.75) WITHIN GROUP (ORDER BY coalesce(w.took, interval '1000 days')) AS needed,
           array_agg(w.took ORDER BY week.number) AS usual
    FROM silences AS s
    CROSS JOIN generate_series(1, $5::int) AS week (number)
    CROSS JOIN LATERAL (
        WITH RECURSIVE bursts AS (
            -- The burst that the silence began after is not one of them.
            SELECT NULL::timestamptz AS arrived_at,
                   date_bin($7::interval, s.silent_since, timestamptz 'epoch') + $7::interval - week.number * interval '7 days' AS after,
                   0 AS number
            UNION ALL
            SELECT n.received_at, date_bin($7::interval, n.received_at, timestamptz 'epoch') + $7::interval, b.number + n.heard::int
            FROM bursts AS b
            CROSS JOIN LATERAL (
                SELECT e.received_at, e.signed_at IS NOT NULL AND e.disposition <> 'ignored' AS heard
                FROM events AS e
                WHERE e.received_at >= b.after AND e.received_at <= s.silent_since - (week.number - 1) * interval '7 days'
                ORDER BY e.received_at, e.event_id
                LIMIT 1
            ) AS n
            WHERE b.number < $4::int
        )
        SELECT min(b.arrived_at) FILTER (WHERE b.number = $4::int) - (s.silent_since - week.number * interval '7 days') AS took
        FROM bursts AS b
    ) AS w
    WHERE EXISTS (SELECT FROM events AS e WHERE e.received_at <= s.silent_since - week.number * interval '7 days')
    GROUP BY s.silent_since, s.event_id
    HAVING count(*) >= $6::int
),
opened AS (
    SELECT r.silent_since, r.event_id, r.needed, r.usual,
           date_trunc('hour', r.silent_since + greatest(r.needed, $3::interval) - interval '1 microsecond', 'UTC') + interval '1 hour'
               AS opened_at
    FROM rhythm AS r
    WHERE r.needed <= interval '7 days'
),
closed AS (
    SELECT o.silent_since, o.event_id, o.needed, o.usual, o.opened_at, n.heard_at,
           least($2::timestamptz, date_trunc('hour', n.heard_at - interval '1 microsecond', 'UTC')) AS last_seen_at
    FROM opened AS o
    LEFT JOIN LATERAL (
        WITH RECURSIVE ahead AS (
            SELECT o.silent_since AS received_at, false AS heard
            UNION ALL
            SELECT n.received_at, n.heard
            FROM ahead AS a
            CROSS JOIN LATERAL (
                SELECT e.received_at, e.signed_at IS NOT NULL AND e.disposition <> 'ignored' AS heard
                FROM events AS e
                WHERE e.received_at > a.received_at
                ORDER BY e.received_at, e.event_id
                LIMIT 1
            ) AS n
            WHERE NOT a.heard
        )
        SELECT a.received_at AS heard_at FROM ahead AS a WHERE a.heard
    ) AS n ON true
    WHERE o.opened_at <= $2::timestamptz
)
SELECT c.silent_since, c.event_id, c.needed, c.usual, c.opened_at, c.last_seen_at, c.heard_at
FROM closed AS c
WHERE c.opened_at <= c.last_seen_at AND c.last_seen_at >= $1::timestamptz
ORDER BY c.opened_at
