-- candidates --
-- At least two refunds within the window are needed, and quiet is that window.
SELECT FROM refunds AS r
WHERE r.created_at BETWEEN look.since - look.quiet AND look.until
  AND coalesce(r.status, '') NOT IN ('failed', 'canceled') AND NOT r.released
HAVING count(*) >= 2

-- incidents --
-- $1 since, $2 until, $3 window, $4 minimum charges, $5 minimum charges by amount, $6 baseline factor, $7 minimum strength,
-- $8 baseline days, $9 lateness, $10 sample that amounts need, $11 evidence limit.
WITH given_back AS MATERIALIZED (
    SELECT r.refund_id, r.created_at, coalesce(r.account, '') AS account, r.charge_id, r.amount, r.currency, r.event_id,
           coalesce(r.reason, 'none') AS reason,
           -- Of several parts of one charge the first is counted.
           (lag(r.created_at) OVER (
               PARTITION BY coalesce(r.account, ''), coalesce(r.charge_id, r.payment_intent_id, r.refund_id) ORDER BY r.created_at, r.refund_id
           ) < r.created_at - $3::interval) IS NOT FALSE AS first_part
    FROM refunds AS r
    WHERE r.created_at BETWEEN $1::timestamptz - 2 * $3::interval AND $2::timestamptz
      AND coalesce(r.status, '') NOT IN ('failed', 'canceled')
      AND r.reason IS DISTINCT FROM 'expired_uncaptured_charge' AND NOT r.released
),
counted AS (
    SELECT g.account, g.currency, g.created_at,
           count(*) FILTER (WHERE g.first_part) OVER of_account AS refunds,
           count(*) FILTER (WHERE g.first_part) OVER of_currency AS refunds_in_currency,
           sum(g.amount) OVER of_currency - max(g.amount) OVER of_currency AS amount
    FROM given_back AS g
    WINDOW of_account AS (PARTITION BY g.account ORDER BY g.created_at RANGE BETWEEN $3::interval PRECEDING AND CURRENT ROW),
           of_currency AS (PARTITION BY g.account, g.currency ORDER BY g.created_at RANGE BETWEEN $3::interval PRECEDING AND CURRENT ROW)
),
suspects AS MATERIALIZED (
    SELECT DISTINCT c.account, c.currency, c.created_at, date_trunc('day', c.created_at, 'UTC') AS day, c.refunds, c.refunds_in_currency, c.amount
    FROM counted AS c
    WHERE c.created_at >= $1 AND (c.refunds >= $4 OR c.refunds_in_currency >= $5)
),
-- Whole UTC days that end before the oldest event that may still be on its way.
days AS MATERIALIZED (
    SELECT DISTINCT s.account, s.day,
           s.day - $9::interval - $8::int * interval '1 day' AS since, s.day - $9::interval AS until,
           date_part('epoch', $3::interval) / 86400 AS of_a_day
    FROM suspects AS s
    WHERE s.day - $9::interval - $8::int * interval '1 day' >= least(
        (SELECT min(c.created_at) FROM charges AS c), (SELECT min(r.created_at) FROM refunds AS r)
    )
),
earlier AS MATERIALIZED (
    SELECT d.account, d.day, e.currency, e.amount, e.number, e.subject
    FROM days AS d
    CROSS JOIN LATERAL (
        SELECT r.currency, r.amount, coalesce(r.charge_id, r.payment_intent_id, r.refund_id) AS subject,
               floor(date_part('epoch', d.until - r.created_at) / 86400)::int AS number
        FROM refunds AS r
        WHERE r.created_at >= d.since AND r.created_at < d.until AND coalesce(r.account, '') = d.account
          AND r.reason IS DISTINCT FROM 'expired_uncaptured_charge' AND NOT r.released
    ) AS e
),
usual AS MATERIALIZED (
    SELECT d.account, d.day, percentile_cont(0.9) WITHIN GROUP (ORDER BY coalesce(n.refunds, 0)) * greatest(d.of_a_day, 1) AS refunds
    FROM days AS d
    CROSS JOIN generate_series(0, $8::int - 1) AS before (number)
    LEFT JOIN (
        SELECT e.account, e.day, e.number, count(DISTINCT e.subject) AS refunds FROM earlier AS e GROUP BY e.account, e.day, e.number
    ) AS n ON n.account = d.account AND n.day = d.day AND n.number = before.number
    GROUP BY d.account, d.day, d.of_a_day
),
usual_amounts AS MATERIALIZED (
    SELECT d.account, d.day, m.currency, m.median, m.large,
           percentile_cont(0.9) WITHIN GROUP (ORDER BY coalesce(n.amount, 0)) * greatest(d.of_a_day, 1) AS amount
    FROM days AS d
    JOIN (
        SELECT e.account, e.day, e.currency, percentile_cont(0.5) WITHIN GROUP (ORDER BY e.amount) AS median,
               percentile_cont(0.9) WITHIN GROUP (ORDER BY e.amount) AS large
        FROM earlier AS e
        GROUP BY e.account, e.day, e.currency
        HAVING count(*) >= $10
    ) AS m ON m.account = d.account AND m.day = d.day
    CROSS JOIN generate_series(0, $8::int - 1) AS before (number)
    LEFT JOIN (
        SELECT e.account, e.day, e.currency, e.number, sum(e.amount)::float8 AS amount
        FROM earlier AS e
        GROUP BY e.account, e.day, e.currency, e.number
    ) AS n ON n.account = d.account AND n.day = d.day AND n.currency = m.currency AND n.number = before.number
    GROUP BY d.account, d.day, d.of_a_day, m.currency, m.median, m.large
),
-- How many times what is needed (counts spread like their root, amounts like that of so many large refunds): by count, and by amount, whichever says more.
compared AS (
    SELECT s.account, s.currency, s.created_at, s.refunds, s.amount, u.refunds AS usual_count, a.amount AS usual_amount,
           CASE WHEN s.refunds >= $4 THEN s.refunds / greatest(
               $4::float8, u.refunds * $6::float8, u.refunds + $7::float8 * sqrt(greatest(u.refunds, 1))
           ) ELSE 0 END AS excess_of_count,
           CASE WHEN s.refunds_in_currency >= $5 AND a.amount IS NOT NULL
                THEN s.amount::float8 / nullif(greatest(
                    2 * a.median * $4::float8, a.amount * $6::float8, a.amount + $7::float8 * sqrt(greatest(a.amount, a.large) * a.large)
                ), 0) ELSE 0 END AS excess_of_amount
    FROM suspects AS s
    JOIN usual AS u ON u.account = s.account AND u.day = s.day
    LEFT JOIN usual_amounts AS a ON a.account = s.account AND a.day = s.day AND a.currency = s.currency
),
marks AS (
    SELECT c.account, c.currency, c.created_at, c.refunds, c.amount, c.usual_count,
           CASE WHEN coalesce(c.excess_of_amount, 0) > c.excess_of_count THEN c.usual_amount END AS usual_amount,
           greatest(c.excess_of_count, coalesce(c.excess_of_amount, 0)) AS excess,
           lag(c.created_at) OVER (PARTITION BY c.account ORDER BY c.created_at, c.currency) + $3::interval < c.created_at AS after_quiet
    FROM compared AS c
    WHERE greatest(c.excess_of_count, coalesce(c.excess_of_amount, 0)) >= 1
),
numbered AS MATERIALIZED (
    SELECT m.account, m.currency, m.created_at, m.refunds, m.amount, m.usual_count, m.usual_amount, m.excess,
           count(*) FILTER (WHERE m.after_quiet) OVER (PARTITION BY m.account ORDER BY m.created_at, m.currency) AS number
    FROM marks AS m
),
islands AS (
    SELECT n.account, n.number, min(n.created_at) AS opened_at, max(n.created_at) AS last_seen_at
    FROM numbered AS n
    GROUP BY n.account, n.number
)
SELECT i.account, i.opened_at, i.last_seen_at, p.created_at AS peak_at, p.currency, p.refunds AS peak_refunds, p.amount::bigint AS peak_amount,
       p.usual_count, p.usual_amount, p.excess AS peak_excess, t.refunds, t.refunded_charges, t.refund_ids, t.charge_ids, t.event_ids, (
           SELECT jsonb_object_agg(a.currency, a.amount) FROM (
               SELECT g.currency, sum(g.amount) AS amount FROM given_back AS g
               WHERE g.account = i.account AND g.created_at BETWEEN i.opened_at - $3::interval AND i.last_seen_at
               GROUP BY g.currency
           ) AS a
       ) AS amounts, (
           SELECT jsonb_object_agg(a.reason, a.refunds) FROM (
               SELECT g.reason, count(*) AS refunds FROM given_back AS g
               WHERE g.account = i.account AND g.created_at BETWEEN i.opened_at - $3::interval AND i.last_seen_at
               GROUP BY g.reason
           ) AS a
       ) AS reasons
FROM islands AS i
CROSS JOIN LATERAL (
    SELECT n.created_at, n.currency, n.refunds, n.amount, n.usual_count, n.usual_amount, n.excess
    FROM numbered AS n
    WHERE n.account = i.account AND n.number = i.number
    ORDER BY n.excess DESC, n.created_at, n.currency
    LIMIT 1
) AS p
CROSS JOIN LATERAL (
    SELECT count(*) AS refunds, count(*) FILTER (WHERE g.first_part) AS refunded_charges,
           (array_agg(g.refund_id ORDER BY g.created_at, g.refund_id))[:$11::int] AS refund_ids,
           (array_agg(g.charge_id ORDER BY g.created_at, g.refund_id))[:$11::int] AS charge_ids,
           (array_agg(g.event_id ORDER BY g.created_at, g.refund_id))[:$11::int] AS event_ids
    FROM given_back AS g
    WHERE g.account = i.account AND g.created_at BETWEEN i.opened_at - $3::interval AND i.last_seen_at
) AS t
ORDER BY i.opened_at, i.account
