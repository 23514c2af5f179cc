-- candidates --
-- A minute back: a state that names the next attempt takes back the verdict on one that did not yet.
SELECT FROM states AS s
WHERE s.kind = 'invoice' AND s.created_at BETWEEN look.since - interval '1 minute' AND look.until
  AND (s.facts ->> 'status' = 'uncollectible'
       OR coalesce((s.facts ->> 'next_payment_attempt_at')::timestamptz <= s.created_at, true))

-- incidents --
-- $1 since, $2 until, $3 settling, $4 minimum amount, $5 lateness, $6 sample of invoices, $7 delayed payment methods.
WITH suspects AS MATERIALIZED (
    SELECT DISTINCT s.object_id
    FROM states AS s
    WHERE s.kind = 'invoice' AND s.created_at BETWEEN $1 AND $2
      AND (s.facts ->> 'status' = 'uncollectible'
           OR coalesce((s.facts ->> 'next_payment_attempt_at')::timestamptz <= s.created_at, true))
),
-- The newest state of each second, of these invoices' whole lives: only the first time counts. Asked by key, invoice by invoice: a join
-- would be free to scan all states.
told AS MATERIALIZED (
    SELECT x.object_id, newest.created_at, newest.event_id, newest.account, newest.facts
    FROM suspects AS x
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (s.created_at) s.created_at, s.event_id, coalesce(s.account, '') AS account, s.facts
        FROM states AS s
        WHERE s.object_id = x.object_id
        ORDER BY s.created_at, s.version DESC
    ) AS newest
),
judged AS (
    SELECT t.object_id, t.created_at, t.event_id, t.account, t.facts, v.exhausted, v.written_off,
           last_value(v.exhausted) OVER (
               PARTITION BY t.object_id ORDER BY t.created_at RANGE BETWEEN CURRENT ROW AND $3::interval FOLLOWING
           ) AS settled
    FROM told AS t
    CROSS JOIN LATERAL jsonb_populate_record(NULL::invoices, t.facts) AS i
    CROSS JOIN LATERAL (
        SELECT i.status = 'uncollectible' AS written_off,
               i.billing_reason IS DISTINCT FROM 'subscription_create' AND i.currency IS NOT NULL AND coalesce(i.amount_remaining >= $4::bigint, false)
               AND (i.status = 'uncollectible'
                    OR i.collection_method = 'charge_automatically' AND coalesce(i.next_payment_attempt_at <= t.created_at, true)) AS exhausted
    ) AS v
),
firsts AS MATERIALIZED (
    SELECT DISTINCT ON (j.object_id) j.object_id, j.created_at, j.event_id, j.account, j.facts, j.written_off,
           date_trunc('day', j.created_at, 'UTC') - $5::interval AS usual_until
    FROM judged AS j
    LEFT JOIN LATERAL (SELECT n.payment_ids FROM invoices AS n WHERE n.invoice_id = j.object_id LIMIT 1) AS known ON true
    WHERE j.exhausted AND j.settled
      AND (j.written_off OR NOT EXISTS (
          -- Keys of two collations would not find the index.
          SELECT FROM unnest(known.payment_ids || (j.object_id COLLATE "default")) AS paying (payment_id)
          WHERE (
              SELECT bool_or(c.status = 'pending' OR c.payment_method_type = ANY ($7::text[]) AND c.updated_at > j.created_at + $3::interval)
              FROM charges AS c
              WHERE c.payment_id = paying.payment_id AND c.created_at <= j.created_at + $3::interval
          )
      ))
    ORDER BY j.object_id, j.created_at
),
usual AS MATERIALIZED (
    SELECT d.account, d.currency, d.usual_until, u.invoices, u.amount
    FROM (
        SELECT DISTINCT f.account, f.facts ->> 'currency' AS currency, f.usual_until FROM firsts AS f WHERE f.created_at BETWEEN $1 AND $2
    ) AS d
    CROSS JOIN LATERAL (
        SELECT count(*) AS invoices, percentile_disc(0.5) WITHIN GROUP (ORDER BY s.total) AS amount
        FROM (
            SELECT k.account, k.total, k.currency
            FROM invoices AS k
            WHERE k.created_at < d.usual_until
            ORDER BY k.created_at DESC, k.invoice_id DESC
            LIMIT $6
        ) AS s
        WHERE s.total > 0 AND s.currency = d.currency AND coalesce(s.account, '') = d.account
    ) AS u
)
SELECT f.account, f.object_id AS invoice_id, f.created_at AS opened_at, f.event_id, i.created_at AS invoiced_at, i.number, i.customer_id,
       i.subscription_id, i.billing_reason, i.currency, i.amount_remaining, i.attempt_count, f.written_off,
       n.status AS status_now, u.invoices AS usual_invoices, u.amount AS usual_amount,
       CASE n.status
           WHEN 'paid' THEN coalesce(n.paid_at, n.updated_at)
           WHEN 'void' THEN coalesce(n.voided_at, n.updated_at)
           WHEN 'deleted' THEN n.updated_at
       END AS ended_at
FROM firsts AS f
CROSS JOIN LATERAL jsonb_populate_record(NULL::invoices, f.facts) AS i
JOIN usual AS u ON u.account = f.account AND u.currency = i.currency AND u.usual_until = f.usual_until
LEFT JOIN LATERAL (
    SELECT n.status, n.paid_at, n.voided_at, n.updated_at FROM invoices AS n WHERE n.invoice_id = f.object_id LIMIT 1
) AS n ON true
WHERE f.created_at BETWEEN $1 AND $2
ORDER BY f.created_at, f.object_id
