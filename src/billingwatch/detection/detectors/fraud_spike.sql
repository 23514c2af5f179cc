-- candidates --
SELECT FROM disputes AS d WHERE d.created_at BETWEEN look.since AND look.until AND d.kind <> 'inquiry'

-- incidents --
-- $1 since, $2 until, $3 window, $4 minimum cases, $5 minimum rate, $6 evidence limit, $7 window of a surge, $8 minimum cases of one,
-- $9 days of the baseline, $10 lateness, $11 cases expected at least, $12 minimum strength.
-- A case is the earliest report about a charge; whether a report is that is asked by key, once per row.
WITH cases AS MATERIALIZED (
    SELECT d.dispute_id, d.charge_id, d.kind, d.amount, d.currency, coalesce(d.account, '') AS account, d.created_at, d.event_id
    FROM disputes AS d
    WHERE d.created_at BETWEEN $1::timestamptz - $3::interval AND $2::timestamptz
      AND (d.kind = 'early_fraud_warning' OR d.kind = 'dispute' AND d.reason = 'fraudulent')
      AND d.dispute_id = CASE
          WHEN d.charge_id IS NOT NULL THEN (
              SELECT f.dispute_id FROM disputes AS f
              WHERE f.charge_id = d.charge_id AND (f.kind = 'early_fraud_warning' OR f.kind = 'dispute' AND f.reason = 'fraudulent')
              ORDER BY f.created_at, f.dispute_id LIMIT 1
          )
          WHEN d.payment_intent_id IS NOT NULL THEN (
              SELECT f.dispute_id FROM disputes AS f
              WHERE f.payment_intent_id = d.payment_intent_id AND f.charge_id IS NULL
                AND (f.kind = 'early_fraud_warning' OR f.kind = 'dispute' AND f.reason = 'fraudulent')
              ORDER BY f.created_at, f.dispute_id LIMIT 1
          )
          ELSE d.dispute_id
      END
),
counted AS (
    SELECT c.account, c.created_at,
           count(*) OVER (PARTITION BY c.account ORDER BY c.created_at RANGE BETWEEN $3::interval PRECEDING AND CURRENT ROW) AS cases,
           count(*) OVER (PARTITION BY c.account ORDER BY c.created_at RANGE BETWEEN $7::interval PRECEDING AND CURRENT ROW) AS surge
    FROM cases AS c
),
suspects AS MATERIALIZED (
    SELECT DISTINCT c.account, c.created_at, date_trunc('hour', c.created_at, 'UTC') AS hour,
           date_trunc('day', c.created_at, 'UTC') - $10::interval AS baseline_until, c.cases, c.surge
    FROM counted AS c
    WHERE c.created_at >= $1 AND (c.cases >= $4 OR c.surge >= $8)
),
-- Payments that all verdicts of an account have in common. Where these alone are too many for any of its counts, nothing more is read.
promising AS MATERIALIZED (
    SELECT b.account, b.first_hour, b.last_hour
    FROM (
        SELECT s.account, min(s.hour) AS first_hour, max(s.hour) AS last_hour, max(s.cases) / $5::float8::numeric AS payments_max
        FROM suspects AS s
        WHERE s.cases >= $4
        GROUP BY s.account
    ) AS b
    WHERE b.payments_max >= (
        SELECT count(*) FROM (
            SELECT FROM charges AS c
            WHERE c.created_at >= b.last_hour - $3::interval AND c.created_at < b.first_hour
              AND c.status = 'succeeded' AND coalesce(c.account, '') = b.account
            LIMIT floor(b.payments_max)::bigint + 1
        ) AS shared
    )
),
-- By whole hours, so that a long incident costs one pass over its charges.
takings AS MATERIALIZED (
    SELECT coalesce(c.account, '') AS account, date_trunc('hour', c.created_at, 'UTC') AS hour, count(*) AS payments
    FROM charges AS c
    WHERE c.created_at >= (SELECT min(p.first_hour) FROM promising AS p) - $3::interval
      AND c.created_at < (SELECT max(p.last_hour) FROM promising AS p)
      AND c.status = 'succeeded'
    GROUP BY 1, 2
),
-- What is usual in as long a time. A charge that was reported twice in those weeks is one case. An account younger than they is learning.
usual AS MATERIALIZED (
    SELECT d.account, d.baseline_until,
           greatest($11::float8, past.cases * extract(epoch FROM $7::interval)::float8 / ($9::int * 86400)) AS cases
    FROM (SELECT DISTINCT s.account, s.baseline_until FROM suspects AS s WHERE s.surge >= $8) AS d
    CROSS JOIN LATERAL (
        SELECT count(DISTINCT coalesce(f.charge_id, f.payment_intent_id, f.dispute_id)) AS cases
        FROM disputes AS f
        WHERE f.created_at >= d.baseline_until - $9::int * interval '1 day' AND f.created_at < d.baseline_until
          AND coalesce(f.account, '') = d.account
          AND (f.kind = 'early_fraud_warning' OR f.kind = 'dispute' AND f.reason = 'fraudulent')
    ) AS past
    WHERE d.baseline_until - $9::int * interval '1 day' >= (
        SELECT c.created_at FROM charges AS c WHERE coalesce(c.account, '') = d.account ORDER BY c.created_at LIMIT 1
    )
),
compared AS MATERIALIZED (
    SELECT s.account, s.created_at, s.cases, s.surge, u.cases AS usual,
           CASE WHEN s.cases >= $4 AND p.account IS NOT NULL THEN coalesce((
               SELECT sum(t.payments) FROM takings AS t
               WHERE t.account = s.account AND t.hour >= s.hour - $3::interval AND t.hour < s.hour
           ), 0)::bigint END AS payments,
           -- Signed root of the likelihood ratio of two Poisson means, which holds for small counts, too.
           CASE WHEN s.surge >= $8 AND s.surge > u.cases
                THEN sqrt(greatest(0, 2 * (s.surge * ln(s.surge / u.cases) - (s.surge - u.cases)))) END AS strength
    FROM suspects AS s
    LEFT JOIN promising AS p ON p.account = s.account
    LEFT JOIN usual AS u ON u.account = s.account AND u.baseline_until = s.baseline_until
),
judged AS (
    SELECT c.account, c.created_at, c.cases, c.surge, c.usual, c.strength, c.payments,
           CASE WHEN c.cases >= c.payments * $5::float8::numeric THEN c.cases::float8 / greatest(c.payments, 1) END AS rate
    FROM compared AS c
),
marks AS (
    SELECT j.account, j.created_at, j.cases, j.surge, j.usual, j.strength, j.payments, j.rate,
           lag(j.created_at) OVER (PARTITION BY j.account ORDER BY j.created_at) + $3::interval < j.created_at AS after_quiet
    FROM judged AS j
    WHERE j.rate IS NOT NULL OR j.strength >= $12::float8
),
numbered AS MATERIALIZED (
    SELECT m.account, m.created_at, m.cases, m.surge, m.usual, m.strength, m.payments, m.rate,
           count(*) FILTER (WHERE m.after_quiet) OVER (PARTITION BY m.account ORDER BY m.created_at) AS number
    FROM marks AS m
),
islands AS (
    SELECT n.account, n.number, min(n.created_at) AS opened_at, max(n.created_at) AS last_seen_at,
           min(n.created_at - CASE WHEN n.rate IS NULL THEN $7::interval ELSE $3::interval END) AS since
    FROM numbered AS n
    GROUP BY n.account, n.number
)
SELECT i.account, i.opened_at, i.last_seen_at, i.since, p.created_at AS peak_at, p.cases AS peak_cases, p.payments AS peak_payments,
       p.rate AS peak_rate, p.surge AS peak_surge, p.usual, p.strength, e.cases, e.disputes, e.warnings, e.event_ids, e.charge_ids, e.dispute_ids, (
           SELECT jsonb_object_agg(a.currency, a.amount) FROM (
               SELECT coalesce(c.currency, k.currency) AS currency, sum(coalesce(c.amount, k.amount)) AS amount
               FROM cases AS k
               LEFT JOIN LATERAL (SELECT c.currency, c.amount FROM charges AS c WHERE c.charge_id = k.charge_id LIMIT 1) AS c ON true
               WHERE k.account = i.account AND k.created_at BETWEEN i.since AND i.last_seen_at
                 AND coalesce(c.currency, k.currency) IS NOT NULL AND coalesce(c.amount, k.amount) IS NOT NULL
               GROUP BY 1
           ) AS a
       ) AS amounts
FROM islands AS i
CROSS JOIN LATERAL (
    SELECT n.created_at, n.cases, n.surge, n.usual, n.strength, n.payments, n.rate
    FROM numbered AS n
    WHERE n.account = i.account AND n.number = i.number
    ORDER BY n.rate DESC NULLS LAST, n.surge DESC, n.created_at
    LIMIT 1
) AS p
CROSS JOIN LATERAL (
    SELECT count(*) AS cases,
           count(*) FILTER (WHERE k.kind = 'dispute') AS disputes,
           count(*) FILTER (WHERE k.kind = 'early_fraud_warning') AS warnings,
           (array_agg(k.event_id ORDER BY k.created_at, k.dispute_id))[:$6::int] AS event_ids,
           (array_agg(k.charge_id ORDER BY k.created_at, k.dispute_id))[:$6::int] AS charge_ids,
           (array_agg(k.dispute_id ORDER BY k.created_at, k.dispute_id))[:$6::int] AS dispute_ids
    FROM cases AS k
    WHERE k.account = i.account AND k.created_at BETWEEN i.since AND i.last_seen_at
) AS e
ORDER BY i.opened_at, i.account
