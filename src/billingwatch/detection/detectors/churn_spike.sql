-- candidates --
-- Only hours in which a subscription ended are judged. Versions tell what is final (see billing.versions), which spares reading all facts.
SELECT FROM states AS s
WHERE s.kind = 'subscription' AND s.created_at > look.since - interval '1 hour' AND s.created_at <= look.until
  AND left(s.version, 1) > '1' AND s.facts ->> 'status' = 'canceled'

-- incidents --
-- $1 since, $2 until, $3 window, $4 step of the grid, $5 minimum ended, $6 minimum share, $7 baseline factor, $8 minimum strength,
-- $9 windows of the baseline, $10 lateness, $11 ends expected at least, $12 evidence limit.
WITH canceled AS MATERIALIZED (
    SELECT coalesce(s.account, '') AS account,
           $1::timestamptz + ceil(extract(epoch FROM s.created_at - $1::timestamptz) / extract(epoch FROM $4::interval)) * $4::interval AS instant
    FROM states AS s
    WHERE s.kind = 'subscription' AND s.created_at > $1::timestamptz - $3::interval AND s.created_at <= $2::timestamptz
      AND left(s.version, 1) > '1' AND s.facts ->> 'status' = 'canceled'
),
-- Only where enough ended at all are the weeks before read.
bounds AS MATERIALIZED (
    SELECT date_trunc('day', $1::timestamptz, 'UTC') - ($9::int + 1) * $3::interval - $10::interval AS since
    FROM canceled AS c
    GROUP BY c.account
    HAVING count(*) >= $5::int
    LIMIT 1
),
ends AS MATERIALIZED (
    SELECT s.object_id, coalesce(s.account, '') AS account, s.created_at, s.event_id, sub.currency, coalesce(sub.mrr, 0) AS mrr,
           coalesce(before.status IN ('past_due', 'unpaid'), false) AS involuntary
    FROM states AS s
    CROSS JOIN LATERAL jsonb_populate_record(NULL::subscriptions, s.facts) AS sub
    CROSS JOIN LATERAL (
        SELECT count(*) AS states, coalesce(bool_or(p.facts ->> 'status' = 'canceled'), false) AS over,
               coalesce(bool_or(p.facts ->> 'status' IN ('active', 'past_due', 'unpaid') AND (p.facts ->> 'mrr')::bigint > 0), false) AS paid,
               (array_agg(p.facts ->> 'status' ORDER BY p.version DESC))[1] AS status
        FROM states AS p
        WHERE p.object_id = s.object_id AND p.version < s.version
    ) AS before
    WHERE s.kind = 'subscription' AND s.created_at > (SELECT b.since FROM bounds AS b) AND s.created_at <= $2::timestamptz
      AND left(s.version, 1) > '1' AND s.facts ->> 'status' = 'canceled'
      AND NOT before.over
      -- One that was never heard of before its end had been paying unless its trial lasted until then.
      AND (before.paid OR before.states = 0 AND sub.mrr > 0 AND (sub.trial_end_at >= coalesce(sub.ended_at, s.created_at)) IS NOT TRUE)
),
steps AS (
    SELECT e.account,
           $1::timestamptz + ceil(extract(epoch FROM e.created_at - $1::timestamptz) / extract(epoch FROM $4::interval)) * $4::interval AS instant,
           count(*) AS ended
    FROM ends AS e
    WHERE e.created_at > $1::timestamptz - $3::interval
    GROUP BY 1, 2
),
counted AS (
    SELECT a.account, grid.instant,
           sum(coalesce(s.ended, 0)) OVER (
               PARTITION BY a.account ORDER BY grid.instant RANGE BETWEEN $3::interval - $4::interval PRECEDING AND CURRENT ROW
           )::bigint AS ended,
           sum(coalesce(s.ended, 0)) OVER (
               PARTITION BY a.account ORDER BY grid.instant RANGE BETWEEN interval '1 day' - $4::interval PRECEDING AND CURRENT ROW
           )::bigint AS ended_of_day, s.ended AS ended_now
    FROM (SELECT DISTINCT s.account FROM steps AS s) AS a
    CROSS JOIN generate_series($1::timestamptz - $3::interval, $2::timestamptz, $4::interval) AS grid (instant)
    LEFT JOIN steps AS s ON s.account = a.account AND s.instant = grid.instant
),
suspects AS MATERIALIZED (
    SELECT c.account, c.instant, date_trunc('day', c.instant, 'UTC') - $3::interval - $10::interval AS baseline_until, c.ended, c.ended_of_day
    FROM counted AS c
    WHERE c.instant >= $1 AND c.ended_now > 0 AND c.ended >= $5::int
),
baselines AS MATERIALIZED (
    SELECT d.account, d.baseline_until, past.busiest, past.median, past.mean
    FROM (SELECT DISTINCT s.account, s.baseline_until FROM suspects AS s) AS d
    CROSS JOIN LATERAL (
        SELECT max(w.ended) AS busiest, percentile_cont(0.5) WITHIN GROUP (ORDER BY w.ended) AS median,
               avg(w.ended)::float8 AS mean
        FROM (
            SELECT count(e.object_id) AS ended
            FROM generate_series(1, $9::int) AS number (number)
            LEFT JOIN ends AS e
              ON e.account = d.account
             AND e.created_at > d.baseline_until - number.number * $3::interval
             AND e.created_at <= d.baseline_until - (number.number - 1) * $3::interval
            GROUP BY number.number
        ) AS w
    ) AS past
    -- An account whose history does not reach back so far is still being learned.
    -- Of one with few subscriptions charges tell sooner that it is watched.
    WHERE d.baseline_until - $9::int * $3::interval >= least(
        (
            SELECT s.created_at FROM states AS s
            WHERE s.kind = 'subscription' AND coalesce(s.account, '') = d.account
            ORDER BY s.created_at
            LIMIT 1
        ),
        (SELECT c.created_at FROM charges AS c WHERE coalesce(c.account, '') = d.account ORDER BY c.created_at LIMIT 1)
    )
),
compared AS MATERIALIZED (
    SELECT s.account, s.instant, s.baseline_until, s.ended, b.busiest, b.median, g.strength
    FROM suspects AS s
    JOIN baselines AS b ON b.account = s.account AND b.baseline_until = s.baseline_until
    CROSS JOIN LATERAL (
        -- Signed root of the likelihood ratio of two Poisson means, which holds for small counts, too. Of the window, or of its last day:
        -- as many within a day are less of an accident.
        SELECT max(sqrt(greatest(0, 2 * (n.ended * ln(n.ended / n.usual) - (n.ended - n.usual))))) AS strength
        -- The mean, for the busiest of some windows lies above what is to be expected. The factor below is on that one.
        FROM (SELECT greatest(b.mean, $11::float8) AS of_window) AS u
        CROSS JOIN LATERAL (
            VALUES (s.ended, u.of_window), (s.ended_of_day, u.of_window * 86400 / extract(epoch FROM $3::interval)::float8)
        ) AS n (ended, usual)
        WHERE n.ended > n.usual
    ) AS g
    WHERE s.ended >= b.busiest * $7::float8 AND g.strength >= $8::float8
),
-- Those that were heard of in the weeks of the baseline. Whoever is an ordinary tenant is not asked.
known AS MATERIALIZED (
    SELECT d.account, d.baseline_until, count(DISTINCT s.object_id) AS subscriptions
    FROM (SELECT DISTINCT c.account, c.baseline_until FROM compared AS c) AS d
    CROSS JOIN LATERAL (
        SELECT s.object_id
        FROM states AS s
        WHERE s.kind = 'subscription' AND s.created_at > d.baseline_until - $9::int * $3::interval AND s.created_at <= d.baseline_until
          AND left(s.version, 1) <= '1' AND coalesce(s.account, '') = d.account
    ) AS s
    GROUP BY d.account, d.baseline_until
),
marks AS (
    SELECT c.account, c.instant, c.ended, c.busiest, c.median, k.subscriptions, c.strength,
           lag(c.instant) OVER (PARTITION BY c.account ORDER BY c.instant) + $3::interval < c.instant AS after_quiet
    FROM compared AS c
    JOIN known AS k ON k.account = c.account AND k.baseline_until = c.baseline_until
    WHERE c.ended >= k.subscriptions * $6::float8
),
numbered AS MATERIALIZED (
    SELECT m.account, m.instant, m.ended, m.busiest, m.median, m.subscriptions, m.strength,
           count(*) FILTER (WHERE m.after_quiet) OVER (PARTITION BY m.account ORDER BY m.instant) AS number
    FROM marks AS m
),
islands AS (
    SELECT n.account, n.number, min(n.instant) AS opened_at, max(n.instant) AS last_seen_at
    FROM numbered AS n
    GROUP BY n.account, n.number
)
SELECT i.account, i.opened_at, i.last_seen_at, p.instant AS peak_at, p.ended AS peak_ended, p.busiest, p.median, p.subscriptions AS known,
       p.strength, l.ended, l.involuntary, l.event_ids, l.subscription_ids, (
           SELECT jsonb_object_agg(m.currency, m.mrr) FROM (
               SELECT e.currency, sum(e.mrr) AS mrr
               FROM ends AS e
               WHERE e.account = i.account AND e.created_at > i.opened_at - $3::interval AND e.created_at <= i.last_seen_at
                 AND e.currency IS NOT NULL
               GROUP BY e.currency
           ) AS m
       ) AS amounts
FROM islands AS i
CROSS JOIN LATERAL (
    SELECT n.instant, n.ended, n.busiest, n.median, n.subscriptions, n.strength
    FROM numbered AS n
    WHERE n.account = i.account AND n.number = i.number
    ORDER BY n.ended DESC, n.instant
    LIMIT 1
) AS p
CROSS JOIN LATERAL (
    SELECT count(*) AS ended, count(*) FILTER (WHERE e.involuntary) AS involuntary,
           (array_agg(e.event_id ORDER BY e.created_at, e.object_id))[:$12::int] AS event_ids,
           (array_agg(e.object_id ORDER BY e.created_at, e.object_id))[:$12::int] AS subscription_ids
    FROM ends AS e
    WHERE e.account = i.account AND e.created_at > i.opened_at - $3::interval AND e.created_at <= i.last_seen_at
) AS l
ORDER BY i.opened_at, i.account
