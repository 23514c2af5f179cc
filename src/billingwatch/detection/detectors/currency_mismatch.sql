-- candidates --
-- Verdicts are given at the first charge in a currency. The space and the exclamation mark are neighbours: what lies between are a customer's
-- first charges, by currency. With OFFSET 0 they are looked up one by one: joined under row-level security, what was read from JSON finds no index.
SELECT FROM states AS s
WHERE s.kind = 'first_charge' AND s.created_at BETWEEN look.since AND look.until
  AND EXISTS (
      SELECT FROM states AS o
      WHERE o.object_id > (s.facts ->> 'customer_id') || ' ' AND o.object_id < (s.facts ->> 'customer_id') || '!'
        AND o.object_id <> s.object_id AND o.created_at < s.created_at
      OFFSET 0
  )

-- incidents --
-- $1 since, $2 until, $3 minimum charges, $4 minimum time, $5 time after which a customer was moved, $6 first charges that are kept.
WITH told AS MATERIALIZED (
    SELECT s.object_id, s.version, s.created_at, s.facts ->> 'charge_id' AS charge_id, s.facts ->> 'customer_id' AS customer_id,
           (s.facts ->> 'customer_id') || ' ' AS low, (s.facts ->> 'customer_id') || '!' AS high
    FROM states AS s
    WHERE s.kind = 'first_charge' AND s.created_at BETWEEN $1 AND $2
),
firsts AS MATERIALIZED (
    SELECT c.charge_id, c.customer_id, coalesce(c.account, '') AS account, c.amount, c.currency, c.created_at, c.updated_at, c.event_id,
           CASE WHEN c.captured THEN c.amount_captured ELSE c.amount END - c.amount_refunded + c.refunds_failed AS amount_kept
    FROM told AS s
    JOIN charges AS c ON c.charge_id = s.charge_id
    WHERE NOT EXISTS (SELECT FROM states AS e WHERE e.object_id = s.object_id AND e.version < s.version)
      AND EXISTS (
          SELECT FROM states AS o
          WHERE o.object_id > s.low AND o.object_id < s.high AND o.object_id <> s.object_id AND o.created_at < s.created_at
      )
      AND c.status = 'succeeded' AND c.customer_id = s.customer_id
)
SELECT f.charge_id, f.customer_id, f.account, f.amount, f.amount_kept, f.currency, f.created_at, f.updated_at, f.event_id,
       u.currency AS usual_currency, u.payments AS earlier_payments, u.first_at, u.charge_ids AS earlier_charge_ids,
       m.currency AS customer_currency,
       EXISTS (SELECT FROM charges AS e WHERE e.charge_id = ANY (u.charge_ids) AND e.amount = f.amount) AS same_number
FROM firsts AS f
CROSS JOIN LATERAL (
    SELECT min(s.currency) AS currency, count(DISTINCT s.currency) AS currencies, count(*) AS payments, min(s.created_at) AS first_at,
           array_agg(s.charge_id ORDER BY s.created_at, s.charge_id) AS charge_ids
    FROM (
        SELECT s.created_at, s.facts ->> 'currency' AS currency, s.facts ->> 'charge_id' AS charge_id,
               row_number() OVER (PARTITION BY s.object_id ORDER BY s.version) AS number
        FROM states AS s
        WHERE s.object_id > f.customer_id || ' ' AND s.object_id < f.customer_id || '!' AND s.object_id <> f.customer_id || ' ' || f.currency
          AND s.created_at < f.created_at
    ) AS s
    WHERE s.number <= $6
) AS u
LEFT JOIN LATERAL (
    SELECT s.facts ->> 'currency' AS currency
    FROM states AS s
    WHERE s.object_id = f.customer_id AND s.kind = 'customer' AND s.created_at <= f.created_at - $5::interval
    ORDER BY s.version DESC
    LIMIT 1
) AS m ON true
WHERE u.currencies = 1
  AND u.first_at <= f.created_at - $4::interval
  AND u.payments >= CASE WHEN m.currency = u.currency THEN 1 ELSE $3 END
  AND coalesce(m.currency, '') <> f.currency
ORDER BY f.created_at, f.charge_id
