-- candidates --
SELECT FROM charges AS c
WHERE c.created_at BETWEEN look.since - look.quiet AND look.until AND c.status = 'succeeded' AND c.captured AND c.payer IS NOT NULL
GROUP BY c.account, c.payer, c.amount, c.currency
HAVING count(*) > 1

-- incidents --
-- $1 since, $2 until, $3 window, $4 evidence limit.
-- A mark is a charge that repeats an earlier one. What is neither a mark nor refunded is owed, so is one payment per order that is named.
WITH payments AS MATERIALIZED (
    SELECT c.charge_id, c.payment_id, coalesce(c.account, '') AS account, c.payer, c.amount, c.currency, c.amount_refunded,
           c.order_reference, c.from_invoice, c.invoice_id, c.created_at, c.updated_at, c.event_id
    FROM charges AS c
    WHERE c.created_at BETWEEN $1::timestamptz - $3::interval AND $2::timestamptz
      AND c.status = 'succeeded' AND c.captured AND c.payer IS NOT NULL
),
given_back AS MATERIALIZED (
    SELECT r.charge_id, r.created_at, r.amount
    FROM refunds AS r
    WHERE r.created_at BETWEEN $1::timestamptz - $3::interval AND $2::timestamptz
      AND coalesce(r.status, '') NOT IN ('failed', 'canceled')
),
pairs AS MATERIALIZED (
    SELECT later.account, later.payer, later.amount, later.currency, later.charge_id, later.created_at,
           earlier.charge_id AS repeated_charge_id, coalesce(later.order_reference = earlier.order_reference, false) AS same_order
    FROM payments AS later
    JOIN payments AS earlier
      ON earlier.account = later.account AND earlier.payer = later.payer
     AND earlier.amount = later.amount AND earlier.currency = later.currency
    WHERE later.created_at >= $1
      AND (earlier.created_at, earlier.charge_id) < (later.created_at, later.charge_id)
      AND earlier.created_at >= later.created_at - $3::interval
      AND earlier.payment_id <> later.payment_id
      AND (earlier.order_reference <> later.order_reference) IS NOT TRUE
      AND (NOT (earlier.from_invoice AND later.from_invoice) OR earlier.invoice_id = later.invoice_id)
      -- Given back before it was paid again: the customer bought anew.
      AND earlier.amount > (
          SELECT coalesce(sum(g.amount), 0) FROM given_back AS g
          WHERE g.charge_id = earlier.charge_id AND g.created_at <= later.created_at
      )
),
marks AS (
    SELECT p.account, p.payer, p.amount, p.currency, p.charge_id, p.created_at, bool_or(p.same_order) AS same_order,
           lag(p.created_at) OVER subject + $3::interval < p.created_at AS after_quiet
    FROM pairs AS p
    GROUP BY p.account, p.payer, p.amount, p.currency, p.charge_id, p.created_at
    WINDOW subject AS (PARTITION BY p.account, p.payer, p.amount, p.currency ORDER BY p.created_at, p.charge_id)
),
numbered AS MATERIALIZED (
    SELECT m.account, m.payer, m.amount, m.currency, m.charge_id, m.created_at, m.same_order,
           count(*) FILTER (WHERE m.after_quiet)
               OVER (PARTITION BY m.account, m.payer, m.amount, m.currency ORDER BY m.created_at, m.charge_id) AS number
    FROM marks AS m
),
members AS (
    SELECT n.account, n.payer, n.amount, n.currency, n.number, n.charge_id FROM numbered AS n
    UNION
    SELECT n.account, n.payer, n.amount, n.currency, n.number, p.repeated_charge_id
    FROM numbered AS n
    JOIN pairs AS p ON p.charge_id = n.charge_id
),
totals AS (
    SELECT m.account, m.payer, m.amount, m.currency, m.number,
           count(*) AS charges,
           count(*) FILTER (WHERE p.amount_refunded < p.amount) AS kept,
           count(DISTINCT p.order_reference) AS orders,
           sum(greatest(p.amount - p.amount_refunded, 0))::bigint AS amount_kept,
           max(p.updated_at) FILTER (WHERE p.amount_refunded >= p.amount) AS refunded_at,
           min(p.created_at) AS first_charged_at,
           (array_agg(p.charge_id ORDER BY p.created_at, p.charge_id))[:$4::int] AS charge_ids,
           (array_agg(p.event_id ORDER BY p.created_at, p.charge_id))[:$4::int] AS event_ids
    FROM members AS m
    JOIN payments AS p ON p.charge_id = m.charge_id
    GROUP BY m.account, m.payer, m.amount, m.currency, m.number
),
islands AS (
    SELECT n.account, n.payer, n.amount, n.currency, n.number, min(n.created_at) AS opened_at, max(n.created_at) AS last_seen_at,
           count(*) AS repeats, bool_or(n.same_order) AS same_order
    FROM numbered AS n
    GROUP BY n.account, n.payer, n.amount, n.currency, n.number
)
SELECT i.account, i.payer, i.amount, i.currency, i.opened_at, i.last_seen_at, i.same_order, t.charges, t.kept,
       greatest(t.charges - i.repeats, t.orders) AS owed, t.amount_kept, t.refunded_at, t.first_charged_at, t.charge_ids, t.event_ids
FROM islands AS i
JOIN totals AS t
  ON t.account = i.account AND t.payer = i.payer AND t.amount = i.amount AND t.currency = i.currency AND t.number = i.number
ORDER BY i.opened_at, i.account, i.payer, i.amount, i.currency
