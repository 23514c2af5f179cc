-- candidates --
-- Verdicts are given at refused attempts only.
SELECT FROM charges AS c WHERE c.created_at BETWEEN look.since AND look.until AND c.status = 'failed'

-- incidents --
-- $1 since, $2 until, $3 window, $4 quiet, $5 minimum blocked, $6 minimum blocked rate, $7 baseline factor, $8 minimum strength,
-- $9 refusals of a card, $10 cards of a customer, $11 cards, $12 baseline days, $13 lateness, $14 sample of a day, $15 prior attempts,
-- $16 prior rate, $17 sample that tells what is small, $18 evidence limit.
-- A window is as long again before it: whether a card in it is there for the first time depends on that.
WITH attempts AS MATERIALIZED (
    SELECT c.charge_id, c.created_at, coalesce(c.account, '') AS account, c.card_fingerprint AS card, c.customer_id, c.amount, c.currency,
           greatest(
               CASE WHEN c.captured THEN c.amount_captured ELSE c.amount END - c.amount_refunded + c.refunds_failed, 0
           ) AS amount_kept,
           c.event_id, c.status = 'succeeded' AS succeeded,
           c.status = 'failed' AND c.outcome_type IS NOT DISTINCT FROM 'blocked' AS blocked,
           c.status = 'failed' AND NOT c.from_invoice AS refused,
           coalesce(c.decline_code, c.failure_code, c.outcome_type, 'unknown') AS decline_code
    FROM charges AS c
    WHERE c.created_at BETWEEN $1::timestamptz - 2 * $3::interval AND $2::timestamptz
),
repeated AS (
    SELECT a.charge_id, a.created_at, a.account, a.card, a.customer_id, a.amount, a.currency, a.blocked, a.refused,
           a.refused AND a.card IS NOT NULL
           AND (lag(a.created_at) OVER of_card < a.created_at - $3::interval) IS NOT FALSE AS new_card,
           a.refused AND a.card IS NOT NULL AND a.customer_id IS NOT NULL
           AND (lag(a.created_at) OVER of_customer < a.created_at - $3::interval) IS NOT FALSE AS new_card_of_customer
    FROM attempts AS a
    WINDOW of_card AS (PARTITION BY a.account, a.card, a.refused ORDER BY a.created_at, a.charge_id),
           of_customer AS (PARTITION BY a.account, a.customer_id, a.card, a.refused ORDER BY a.created_at, a.charge_id)
),
counted AS MATERIALIZED (
    SELECT r.charge_id, r.created_at, r.account, r.card, r.customer_id, r.amount, r.currency, r.blocked, r.refused, r.new_card,
           count(*) OVER recent AS attempts,
           count(*) FILTER (WHERE r.blocked) OVER recent AS blocked_attempts,
           count(*) FILTER (WHERE r.new_card) OVER recent AS cards,
           count(*) FILTER (WHERE r.refused AND r.card IS NOT NULL) OVER of_card AS card_refusals,
           count(*) FILTER (WHERE r.new_card_of_customer) OVER of_customer AS customer_cards
    FROM repeated AS r
    WINDOW recent AS (PARTITION BY r.account ORDER BY r.created_at RANGE BETWEEN $3::interval PRECEDING AND CURRENT ROW),
           of_card AS (PARTITION BY r.account, r.card ORDER BY r.created_at RANGE BETWEEN $3::interval PRECEDING AND CURRENT ROW),
           of_customer AS (PARTITION BY r.account, r.customer_id ORDER BY r.created_at RANGE BETWEEN $3::interval PRECEDING AND CURRENT ROW)
),
suspects AS MATERIALIZED (
    SELECT c.charge_id, c.created_at, c.account, c.card, c.customer_id, date_trunc('day', c.created_at, 'UTC') AS day, c.attempts,
           c.blocked_attempts,
           c.blocked AND c.blocked_attempts >= $5 AND c.blocked_attempts >= c.attempts * $6::float8::numeric AS by_blocked,
           c.refused AND c.card IS NOT NULL AND c.card_refusals >= $9 AS by_card,
           c.refused AND c.customer_id IS NOT NULL AND c.customer_cards >= $10 AS by_customer,
           c.refused AND c.cards >= $11 AS by_cards
    FROM counted AS c
    WHERE c.created_at >= $1
      AND (c.blocked AND c.blocked_attempts >= $5 AND c.blocked_attempts >= c.attempts * $6::float8::numeric
           OR c.refused AND (c.card IS NOT NULL AND c.card_refusals >= $9
                             OR c.customer_id IS NOT NULL AND c.customer_cards >= $10
                             OR c.cards >= $11))
),
-- A bounded sample of each day, for every UTC day that a suspect's window has a part in. It ends before the oldest event that may still be
-- on its way. What fails days later (bank debits) was never a card.
samples AS MATERIALIZED (
    SELECT d.account, d.day, s.currency, s.amount, s.paid, s.blocked
    FROM (
        SELECT s.account, s.day FROM suspects AS s
        UNION
        SELECT s.account, date_trunc('day', s.created_at - $3::interval, 'UTC') FROM suspects AS s
    ) AS d
    CROSS JOIN generate_series(1, $12::int) AS earlier (number)
    CROSS JOIN LATERAL (
        SELECT c.currency, c.amount, c.status = 'succeeded' AS paid, c.outcome_type IS NOT DISTINCT FROM 'blocked' AS blocked
        FROM charges AS c
        WHERE c.created_at >= d.day - $13::interval - earlier.number * interval '1 day'
          AND c.created_at < d.day - $13::interval - (earlier.number - 1) * interval '1 day'
          AND coalesce(c.account, '') = d.account
          AND c.payment_method_type LIKE 'card%'
        ORDER BY c.created_at, c.charge_id
        LIMIT $14
    ) AS s
),
usual AS MATERIALIZED (
    SELECT s.account, s.day,
           (count(*) FILTER (WHERE s.blocked) + $15::int * $16::float8) / (count(*) + $15::int) AS blocked_rate
    FROM samples AS s
    GROUP BY s.account, s.day
),
small AS MATERIALIZED (
    SELECT s.account, s.day, s.currency, percentile_disc(0.1) WITHIN GROUP (ORDER BY s.amount) AS amount
    FROM samples AS s
    WHERE s.paid
    GROUP BY s.account, s.day, s.currency
    HAVING count(*) >= $17
),
small_attempts AS MATERIALIZED (
    SELECT c.charge_id, c.account, c.created_at, c.new_card
    FROM counted AS c
    JOIN small AS s ON s.account = c.account AND s.day = date_trunc('day', c.created_at, 'UTC') AND s.currency = c.currency
    WHERE c.refused AND c.amount < s.amount
),
small_cards AS MATERIALIZED (
    SELECT s.charge_id, count(*) FILTER (WHERE s.new_card) OVER recent AS cards
    FROM small_attempts AS s
    WINDOW recent AS (PARTITION BY s.account ORDER BY s.created_at RANGE BETWEEN $3::interval PRECEDING AND CURRENT ROW)
),
judged AS (
    SELECT s.charge_id, s.account, s.created_at, s.card, s.customer_id, s.by_card, s.by_customer,
           coalesce(s.by_cards AND m.cards >= $11, false) AS by_cards,
           s.by_blocked AND r.blocked >= r.usual * $7::float8 AND coalesce(g.strength >= $8::float8, false) AS by_blocked, r.usual
    FROM suspects AS s
    LEFT JOIN small_cards AS m ON m.charge_id = s.charge_id
    LEFT JOIN usual AS u ON u.account = s.account AND u.day = s.day
    CROSS JOIN LATERAL (
        SELECT s.blocked_attempts::float8 / s.attempts AS blocked, coalesce(u.blocked_rate, $16::float8) AS usual
    ) AS r
    CROSS JOIN LATERAL (
        -- Signed root of the likelihood ratio: a z that also holds for small counts, where the binomial is far from normal.
        SELECT CASE WHEN s.by_blocked AND r.blocked > r.usual THEN sqrt(greatest(0, 2 * (
            s.blocked_attempts * ln(r.blocked / r.usual)
            + CASE WHEN s.blocked_attempts < s.attempts THEN (s.attempts - s.blocked_attempts) * ln((1 - r.blocked) / (1 - r.usual)) ELSE 0 END
        ))) END AS strength
    ) AS g
),
marks AS (
    SELECT j.charge_id, j.account, j.created_at, j.card, j.customer_id, j.by_blocked, j.by_card, j.by_customer, j.by_cards, j.usual,
           lag(j.created_at) OVER (PARTITION BY j.account ORDER BY j.created_at, j.charge_id) + $4::interval < j.created_at AS after_quiet
    FROM judged AS j
    WHERE j.by_blocked OR j.by_card OR j.by_customer OR j.by_cards
),
numbered AS MATERIALIZED (
    SELECT m.account, m.created_at, m.card, m.customer_id, m.by_blocked, m.by_card, m.by_customer, m.by_cards, m.usual,
           count(*) FILTER (WHERE m.after_quiet) OVER (PARTITION BY m.account ORDER BY m.created_at, m.charge_id) AS number
    FROM marks AS m
),
islands AS MATERIALIZED (
    SELECT n.account, n.number, min(n.created_at) AS opened_at, max(n.created_at) AS last_seen_at, max(n.usual) AS usual_blocked_rate,
           bool_or(n.by_cards) AS by_cards,
           array_agg(DISTINCT n.card) FILTER (WHERE n.card IS NOT NULL) AS cards,
           array_agg(DISTINCT n.customer_id) FILTER (WHERE n.by_customer) AS customers,
           jsonb_build_object(
               'blocked', count(*) FILTER (WHERE n.by_blocked), 'card', count(*) FILTER (WHERE n.by_card),
               'customer', count(*) FILTER (WHERE n.by_customer), 'small_amounts', count(*) FILTER (WHERE n.by_cards)
           ) AS traces
    FROM numbered AS n
    GROUP BY n.account, n.number
),
hostile AS MATERIALIZED (
    SELECT i.account, i.number, a.charge_id, a.created_at, a.card, a.blocked, a.event_id, a.decline_code
    FROM islands AS i
    JOIN attempts AS a ON a.account = i.account AND a.created_at BETWEEN i.opened_at - $3::interval AND i.last_seen_at
    WHERE a.blocked
       OR a.refused AND (a.card = ANY (i.cards) OR a.customer_id = ANY (i.customers)
                         OR i.by_cards AND EXISTS (SELECT FROM small_attempts AS s WHERE s.charge_id = a.charge_id))
),
totals AS MATERIALIZED (
    SELECT h.account, h.number, min(h.created_at) AS began_at,
           count(*) FILTER (WHERE h.blocked) AS blocked,
           count(*) FILTER (WHERE NOT h.blocked) AS declined,
           count(DISTINCT h.card) AS cards,
           array_agg(DISTINCT h.card) FILTER (WHERE h.card IS NOT NULL) AS fingerprints,
           (array_agg(h.charge_id ORDER BY h.created_at, h.charge_id))[:$18::int] AS charge_ids,
           (array_agg(h.event_id ORDER BY h.created_at, h.charge_id))[:$18::int] AS event_ids
    FROM hostile AS h
    GROUP BY h.account, h.number
),
worked AS MATERIALIZED (
    SELECT i.account, i.number, a.charge_id, a.created_at, a.amount_kept, a.currency
    FROM islands AS i
    JOIN totals AS t ON t.account = i.account AND t.number = i.number
    JOIN attempts AS a ON a.account = i.account AND a.created_at BETWEEN i.opened_at - $3::interval AND i.last_seen_at
    WHERE a.succeeded AND (a.card = ANY (t.fingerprints) OR a.customer_id = ANY (i.customers))
)
SELECT i.account, i.opened_at, i.last_seen_at, i.usual_blocked_rate, i.traces, t.began_at, t.blocked, t.declined, t.cards,
       t.fingerprints[:$18::int] AS fingerprints, t.charge_ids, t.event_ids, w.succeeded, w.succeeded_ids, (
           SELECT jsonb_object_agg(m.currency, m.amount) FROM (
               SELECT w.currency, sum(w.amount_kept) AS amount FROM worked AS w
               WHERE w.account = i.account AND w.number = i.number AND w.amount_kept > 0
               GROUP BY w.currency
           ) AS m
       ) AS amounts, (
           SELECT jsonb_object_agg(d.decline_code, d.attempts) FROM (
               SELECT h.decline_code, count(*) AS attempts FROM hostile AS h
               WHERE h.account = i.account AND h.number = i.number
               GROUP BY h.decline_code
           ) AS d
       ) AS decline_codes
FROM islands AS i
JOIN totals AS t ON t.account = i.account AND t.number = i.number
CROSS JOIN LATERAL (
    SELECT count(*) AS succeeded, (array_agg(w.charge_id ORDER BY w.created_at, w.charge_id))[:$18::int] AS succeeded_ids
    FROM worked AS w
    WHERE w.account = i.account AND w.number = i.number
) AS w
ORDER BY i.opened_at, i.account
