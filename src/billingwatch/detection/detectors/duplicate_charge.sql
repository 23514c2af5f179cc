-- candidates --
SELECT FROM charges AS c
WHERE c.created_at BETWEEN look.since - look.quiet AND look.until AND c.status = 'succeeded' AND c.captured AND c.payer IS NOT NULL
GROUP BY c.account, c.payer, c.amount, c.currency
HAVING count(*) > 1

-- incidents --
-- $1 since, $2 until, $3 window, $4 evidence limit, $5 how long before its payment an invoice may have been made.
-- A mark is a charge that repeats an earlier one. What is neither a mark nor refunded is owed, so is one payment per order that is named.
WITH payments AS MATERIALIZED (
    SELECT c.charge_id, c.payment_id, coalesce(c.account, '') AS account, c.customer_id, c.payer, c.amount, c.currency,
           CASE WHEN c.amount_captured > 0 THEN c.amount_captured ELSE c.amount END AS taken,
           c.amount_refunded - c.refunds_failed AS returned,
           c.order_reference, coalesce(c.destination, '') AS destination, c.from_invoice, c.invoice_id,
           c.created_at, c.updated_at, c.event_id
    FROM charges AS c
    WHERE c.created_at BETWEEN $1::timestamptz - $3::interval AND $2::timestamptz
      AND c.status = 'succeeded' AND c.captured AND c.payer IS NOT NULL
),
given_back AS MATERIALIZED (
    SELECT r.charge_id, r.created_at, r.amount
    FROM refunds AS r
    WHERE r.created_at BETWEEN $1::timestamptz - $3::interval AND $2::timestamptz
      AND coalesce(r.status, '') NOT IN ('failed', 'canceled') AND NOT r.released
),
alike AS MATERIALIZED (
    SELECT later.account, later.customer_id, later.payer, later.amount, later.currency, later.charge_id, later.created_at,
           later.payment_id, earlier.charge_id AS repeated_charge_id, earlier.payment_id AS repeated_payment_id,
           earlier.created_at AS repeated_at, earlier.from_invoice AND later.from_invoice AS from_invoices,
           coalesce(earlier.invoice_id = later.invoice_id, false) AS same_invoice,
           coalesce(later.order_reference = earlier.order_reference, false) AS same_order
    FROM payments AS later
    JOIN payments AS earlier
      ON earlier.account = later.account AND earlier.payer = later.payer
     AND earlier.amount = later.amount AND earlier.currency = later.currency
    WHERE later.created_at >= $1
      AND (earlier.created_at, earlier.charge_id) < (later.created_at, later.charge_id)
      AND earlier.created_at >= later.created_at - $3::interval
      AND earlier.payment_id <> later.payment_id
      -- Parts of one order that go to two sellers are two payments.
      AND earlier.destination = later.destination
      AND (earlier.order_reference <> later.order_reference) IS NOT TRUE
      -- Given back before it was paid again: the customer bought anew.
      AND earlier.taken > (
          SELECT coalesce(sum(g.amount), 0) FROM given_back AS g
          WHERE g.charge_id = earlier.charge_id AND g.created_at <= later.created_at
      )
),
-- Since Stripe API 2025-03-31 only the invoice names its payment. One pass over the invoices, and none where no charges are alike.
paying AS MATERIALIZED (
    SELECT p.id, i.invoice_id
    FROM (SELECT min(a.repeated_at) AS since, max(a.created_at) AS until FROM alike AS a) AS b
    -- With OFFSET 0 they are found by the index, whatever the planner takes the bounds for.
    CROSS JOIN LATERAL (
        SELECT n.invoice_id, n.payment_ids FROM invoices AS n
        WHERE n.created_at BETWEEN b.since - $5::interval AND b.until + $3::interval
        OFFSET 0
    ) AS i
    CROSS JOIN LATERAL unnest(i.payment_ids) AS x (payment_id)
    JOIN (
        SELECT a.charge_id AS id FROM alike AS a
        UNION SELECT a.payment_id FROM alike AS a
        UNION SELECT a.repeated_charge_id FROM alike AS a
        UNION SELECT a.repeated_payment_id FROM alike AS a
    ) AS p ON p.id = x.payment_id
),
-- Two equal subscriptions of one customer, begun within the window: a button that was pressed twice.
begun AS MATERIALIZED (
    SELECT s.facts ->> 'customer_id' AS customer_id, s.facts ->> 'subscription_id' AS subscription_id,
           (s.facts ->> 'created_at')::timestamptz AS created_at, (
               SELECT jsonb_agg(jsonb_build_array(t.price_id, t.quantity) ORDER BY t.price_id, t.quantity)
               FROM jsonb_to_recordset(s.facts -> 'items') AS t (price_id text, quantity bigint)
           ) AS sold
    FROM states AS s
    WHERE s.kind = 'subscription' AND s.created_at BETWEEN $1::timestamptz - 2 * $3::interval AND $2::timestamptz + $3::interval
      AND s.facts ->> 'customer_id' IN (SELECT a.customer_id FROM alike AS a WHERE a.from_invoices)
),
pairs AS MATERIALIZED (
    SELECT a.account, a.payer, a.amount, a.currency, a.charge_id, a.created_at, a.repeated_charge_id, a.same_order, twice.subscription_ids
    FROM alike AS a
    LEFT JOIN LATERAL (
        SELECT ARRAY[f.subscription_id, g.subscription_id] AS subscription_ids
        FROM begun AS f
        JOIN begun AS g ON g.customer_id = f.customer_id AND g.sold = f.sold
        WHERE a.from_invoices AND f.customer_id = a.customer_id AND f.subscription_id <> g.subscription_id
          AND f.created_at BETWEEN a.repeated_at - $3::interval AND a.repeated_at
          AND g.created_at BETWEEN a.repeated_at AND a.created_at
        ORDER BY f.created_at DESC, g.created_at DESC, f.subscription_id, g.subscription_id
        LIMIT 1
    ) AS twice ON true
    WHERE twice.subscription_ids IS NOT NULL
       OR (a.same_invoice OR NOT a.from_invoices) AND NOT EXISTS (
           SELECT FROM paying AS f
           JOIN paying AS g ON g.invoice_id <> f.invoice_id
           WHERE f.id IN (a.charge_id, a.payment_id) AND g.id IN (a.repeated_charge_id, a.repeated_payment_id)
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
           count(*) FILTER (WHERE p.returned < p.taken) AS kept,
           max(p.taken) AS of_one,
           count(DISTINCT p.order_reference) AS orders,
           sum(greatest(p.taken - p.returned, 0))::bigint AS amount_kept,
           max(p.updated_at) FILTER (WHERE p.returned >= p.taken) AS refunded_at,
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
       greatest(t.charges - i.repeats, t.orders) AS owed, t.amount_kept, t.of_one, t.refunded_at, t.first_charged_at, t.charge_ids,
       t.event_ids, ARRAY(
           SELECT DISTINCT x.id FROM numbered AS n
           JOIN pairs AS p ON p.charge_id = n.charge_id
           CROSS JOIN LATERAL unnest(p.subscription_ids) AS x (id)
           WHERE n.account = i.account AND n.payer = i.payer AND n.amount = i.amount AND n.currency = i.currency AND n.number = i.number
           ORDER BY 1
       ) AS subscription_ids
FROM islands AS i
JOIN totals AS t
  ON t.account = i.account AND t.payer = i.payer AND t.amount = i.amount AND t.currency = i.currency AND t.number = i.number
ORDER BY i.opened_at, i.account, i.payer, i.amount, i.currency
