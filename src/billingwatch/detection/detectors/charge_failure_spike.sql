-- candidates --
-- Verdicts are given at failed charges only; a retry is told from a first attempt later.
SELECT FROM charges AS c WHERE c.created_at BETWEEN look.since AND look.until AND c.status = 'failed'

-- incidents --
-- $1 since, $2 until, $3 window, $4 minimum attempts, $5 minimum failures, $6 minimum rate, $7 baseline factor, $8 minimum strength,
-- $9 baseline days, $10 lateness, $11 sample of a day, $12 delayed payment methods, $13 prior attempts, $14 prior rate, $15 evidence limit.
-- Whether a charge is the first attempt of its payment is asked by key, once per row: a join would be free to scan all charges.
WITH firsts AS (
    SELECT c.charge_id, c.created_at, coalesce(c.account, '') AS account, c.amount, c.currency, c.event_id, c.status = 'failed' AS declined,
           coalesce(c.decline_code, c.failure_code, c.outcome_type, 'unknown') AS decline_code,
           lag(c.created_at) OVER (
               PARTITION BY coalesce(c.account, ''), coalesce(c.card_fingerprint, c.charge_id) ORDER BY c.created_at, c.charge_id
           ) >= c.created_at - $3::interval AS same_card_again
    FROM charges AS c
    WHERE c.created_at BETWEEN $1::timestamptz - 2 * $3::interval AND $2::timestamptz
      AND c.outcome_type IS DISTINCT FROM 'blocked'
      AND c.charge_id = (
          SELECT f.charge_id FROM charges AS f
          WHERE f.payment_id = c.payment_id AND f.outcome_type IS DISTINCT FROM 'blocked'
          ORDER BY f.created_at, f.charge_id LIMIT 1
      )
),
attempts AS MATERIALIZED (
    SELECT f.charge_id, f.created_at, f.account, f.amount, f.currency, f.event_id, f.declined, f.decline_code
    FROM firsts AS f
    WHERE f.same_card_again IS NOT TRUE
),
counted AS (
    SELECT a.account, a.declined, a.created_at,
           count(*) OVER recent AS attempts,
           count(*) FILTER (WHERE a.declined) OVER recent AS failures
    FROM attempts AS a
    WINDOW recent AS (PARTITION BY a.account ORDER BY a.created_at RANGE BETWEEN $3::interval PRECEDING AND CURRENT ROW)
),
suspects AS MATERIALIZED (
    SELECT DISTINCT c.account, c.created_at, c.failures, c.attempts, c.failures::float8 / c.attempts AS rate
    FROM counted AS c
    WHERE c.declined AND c.created_at >= $1
      AND c.attempts >= $4 AND c.failures >= $5 AND c.failures >= c.attempts * $6::float8::numeric
),
-- The same time of day on each of the days before, a bounded sample of each. It ends before the oldest event that may still be on its way.
-- A card counts once a day. Only failures are asked whether they are retries: a retry that succeeded weighs next to nothing here.
baselines AS MATERIALIZED (
    SELECT h.account, h.hour, count(DISTINCT (day.number, s.card)) FILTER (WHERE s.declined) AS failures,
           count(DISTINCT (day.number, s.card)) FILTER (WHERE s.card IS NOT NULL) AS attempts
    FROM (SELECT DISTINCT s.account, date_trunc('hour', s.created_at, 'UTC') AS hour FROM suspects AS s) AS h
    CROSS JOIN generate_series(1, $9::int) AS day (number)
    LEFT JOIN LATERAL (
        SELECT c.charge_id, c.payment_id, c.status = 'failed' AS declined, coalesce(c.card_fingerprint, c.charge_id) AS card
        FROM charges AS c
        WHERE c.created_at >= h.hour - $10::interval - day.number * interval '1 day'
          AND c.created_at < h.hour - $10::interval - (day.number - 1) * interval '1 day'
          AND coalesce(c.account, '') = h.account
          AND c.outcome_type IS DISTINCT FROM 'blocked'
          AND coalesce(c.payment_method_type, '') <> ALL ($12::text[])
        ORDER BY c.created_at, c.charge_id
        LIMIT $11
    ) AS s ON NOT s.declined OR s.charge_id = (
        SELECT f.charge_id FROM charges AS f
        WHERE f.payment_id = s.payment_id AND f.outcome_type IS DISTINCT FROM 'blocked'
        ORDER BY f.created_at, f.charge_id LIMIT 1
    )
    GROUP BY h.account, h.hour
),
compared AS (
    SELECT s.account, s.created_at, s.failures, s.attempts, s.rate,
           (b.failures + $13::int * $14::float8) / (b.attempts + $13::int) AS baseline, b.attempts AS baseline_attempts
    FROM suspects AS s
    JOIN baselines AS b ON b.account = s.account AND b.hour = date_trunc('hour', s.created_at, 'UTC')
),
marks AS (
    SELECT c.account, c.created_at, c.failures, c.attempts, c.rate, c.baseline, c.baseline_attempts, g.strength,
           lag(c.created_at) OVER (PARTITION BY c.account ORDER BY c.created_at) + $3::interval < c.created_at AS after_quiet
    FROM compared AS c
    CROSS JOIN LATERAL (
        -- Signed root of the likelihood ratio: a z that also holds for small counts, where the binomial is far from normal.
        SELECT sqrt(greatest(0, 2 * (
            c.failures * ln(c.rate / c.baseline)
            + CASE WHEN c.failures < c.attempts THEN (c.attempts - c.failures) * ln((1 - c.rate) / (1 - c.baseline)) ELSE 0 END
        ))) AS strength
        WHERE c.rate > c.baseline
    ) AS g
    WHERE c.rate >= c.baseline * $7::float8 AND g.strength >= $8::float8
),
numbered AS (
    SELECT m.account, m.created_at, m.failures, m.attempts, m.rate, m.baseline, m.baseline_attempts, m.strength,
           count(*) FILTER (WHERE m.after_quiet) OVER (PARTITION BY m.account ORDER BY m.created_at) AS number
    FROM marks AS m
),
islands AS (
    SELECT n.account, n.number, min(n.created_at) AS opened_at, max(n.created_at) AS last_seen_at
    FROM numbered AS n
    GROUP BY n.account, n.number
)
SELECT i.account, i.opened_at, i.last_seen_at, p.created_at AS peak_at, p.failures AS peak_failures,
       p.attempts AS peak_attempts, p.rate AS peak_rate, p.strength, p.baseline, p.baseline_attempts, e.failures, e.event_ids,
       e.charge_ids, (SELECT jsonb_object_agg(m.currency, m.amount) FROM (
           SELECT a.currency, sum(a.amount) AS amount FROM attempts AS a
           WHERE a.account = i.account AND a.declined AND a.created_at BETWEEN i.opened_at - $3::interval AND i.last_seen_at
           GROUP BY a.currency
       ) AS m) AS amounts, (SELECT jsonb_object_agg(d.decline_code, d.failures) FROM (
           SELECT a.decline_code, count(*) AS failures FROM attempts AS a
           WHERE a.account = i.account AND a.declined AND a.created_at BETWEEN i.opened_at - $3::interval AND i.last_seen_at
           GROUP BY a.decline_code
       ) AS d) AS decline_codes
FROM islands AS i
CROSS JOIN LATERAL (
    SELECT n.created_at, n.failures, n.attempts, n.rate, n.baseline, n.baseline_attempts, n.strength
    FROM numbered AS n
    WHERE n.account = i.account AND n.number = i.number
    ORDER BY n.strength DESC, n.created_at
    LIMIT 1
) AS p
CROSS JOIN LATERAL (
    SELECT count(*) AS failures,
           (array_agg(a.event_id ORDER BY a.created_at, a.charge_id))[:$15::int] AS event_ids,
           (array_agg(a.charge_id ORDER BY a.created_at, a.charge_id))[:$15::int] AS charge_ids
    FROM attempts AS a
    WHERE a.account = i.account AND a.declined AND a.created_at BETWEEN i.opened_at - $3::interval AND i.last_seen_at
) AS e
ORDER BY i.opened_at, i.account
