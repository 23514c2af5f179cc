-- candidates --
-- Sums that do not agree, or a line that is not what the newest state by then says, though older states may yet explain it.
SELECT FROM invoices AS i
WHERE i.created_at BETWEEN look.since - interval '1 min' AND look.until - interval '1 min'
  AND (i.status IN ('open', 'paid', 'uncollectible') OR i.finalized_at IS NOT NULL)
  AND (
      i.total <> i.subtotal - i.discount_amount + i.tax_amount
      OR i.subtotal <> (
          SELECT sum(l.amount)
          FROM jsonb_to_recordset(CASE jsonb_typeof(i.lines) WHEN 'array' THEN i.lines END) AS l (amount bigint)
      )
      OR EXISTS (
          SELECT FROM (
              SELECT s.facts -> 'items' AS items FROM states AS s
              WHERE s.object_id = i.subscription_id AND s.kind = 'subscription' AND s.created_at <= i.created_at + interval '1 min'
              ORDER BY s.version DESC
              LIMIT 1
          ) AS newest
          CROSS JOIN LATERAL jsonb_to_recordset(newest.items) AS t (item_id text, amount bigint)
          JOIN jsonb_to_recordset(CASE jsonb_typeof(i.lines) WHEN 'array' THEN i.lines END)
              AS l (subscription_item_id text, amount bigint, proration boolean)
            ON l.subscription_item_id = t.item_id
          WHERE l.amount <> t.amount AND l.proration IS NOT TRUE
      )
  )

-- incidents --
-- $1 since, $2 until, $3 settling, $4 minimum difference. An invoice is judged when $3 has passed since it was made.
WITH finalized AS MATERIALIZED (
    SELECT coalesce(i.account, '') AS account, i.invoice_id, i.number, i.status, i.customer_id, i.subscription_id, i.currency, i.total,
           i.subtotal, i.discount_amount, i.tax_amount, i.created_at, i.created_at + $3::interval AS judged_at, i.event_id,
           CASE jsonb_typeof(i.lines) WHEN 'array' THEN i.lines END AS lines,
           CASE WHEN i.status IN ('void', 'deleted') THEN coalesce(i.voided_at, i.updated_at) END AS withdrawn_at
    FROM invoices AS i
    WHERE i.created_at BETWEEN $1::timestamptz - $3::interval AND $2::timestamptz - $3::interval
      AND i.currency IS NOT NULL
      AND (i.status IN ('open', 'paid', 'uncollectible') OR i.finalized_at IS NOT NULL AND i.status IN ('void', 'deleted'))
),
summed AS (
    SELECT f.invoice_id,
           CASE WHEN abs(f.subtotal - l.amount) >= $4::bigint AND l.known AND NOT l.discounted THEN f.subtotal - l.amount END AS subtotal_off,
           -- Whether a discount of the line itself is in the subtotal depends on the API version: both readings are right.
           CASE WHEN least(abs(f.total - e.total), CASE WHEN l.discounted AND f.total BETWEEN e.total AND e.total + f.discount_amount THEN 0 END)
                     >= $4::bigint
                THEN f.total - e.total END AS total_off
    FROM finalized AS f
    CROSS JOIN LATERAL (
        SELECT sum(x.amount)::bigint AS amount, coalesce(bool_and(x.listed_all AND x.amount IS NOT NULL), false) AS known,
               coalesce(bool_or(x.discounted), false) AS discounted
        FROM jsonb_to_recordset(f.lines) AS x (amount bigint, listed_all boolean, discounted boolean)
    ) AS l
    CROSS JOIN LATERAL (SELECT f.subtotal - f.discount_amount + f.tax_amount AS total) AS e
),
-- Recurring lines for a whole interval that no state explains. A line of nothing in a trial is as it should be.
wrong AS (
    SELECT f.invoice_id, l.subscription_item_id, l.amount, l.quantity, item.amount AS expected, newest.event_id
    FROM finalized AS f
    CROSS JOIN LATERAL jsonb_to_recordset(f.lines)
        AS l (subscription_item_id text, amount bigint, quantity bigint, proration boolean, period_start bigint, period_end bigint)
    CROSS JOIN LATERAL (
        SELECT s.event_id, s.facts FROM states AS s
        WHERE s.object_id = f.subscription_id AND s.kind = 'subscription' AND s.created_at <= f.judged_at
        ORDER BY s.version DESC
        LIMIT 1
    ) AS newest
    CROSS JOIN LATERAL jsonb_to_recordset(newest.facts -> 'items') AS item (item_id text, amount bigint)
    WHERE item.item_id = l.subscription_item_id AND l.proration IS NOT TRUE AND l.period_end > l.period_start
      AND abs(l.amount - item.amount) >= $4::bigint
      AND NOT EXISTS (
          SELECT FROM states AS s
          CROSS JOIN LATERAL jsonb_to_recordset(s.facts -> 'items') AS t (item_id text, amount bigint, interval text, interval_count int)
          WHERE s.object_id = f.subscription_id AND s.kind = 'subscription' AND s.created_at <= f.judged_at
            AND s.version >= coalesce(
                (
                    SELECT max(b.version) FROM states AS b
                    WHERE b.object_id = f.subscription_id AND b.kind = 'subscription'
                      AND b.created_at <= least(to_timestamp(l.period_start), f.judged_at)
                ), ''
            )
            AND t.item_id = l.subscription_item_id
            AND (
                t.amount IS NULL
                OR abs(l.amount - t.amount) < $4::bigint
                OR l.amount = 0 AND (
                    s.facts ->> 'status' = 'trialing' OR (s.facts ->> 'trial_end_at')::timestamptz > to_timestamp(l.period_start)
                )
                OR (
                    -- No whole interval: an anchor on the 29th to 31st may move a month's end by three days.
                    CASE WHEN t.interval IN ('day', 'week', 'month', 'year') THEN abs(extract(epoch FROM
                        to_timestamp(l.period_start) AT TIME ZONE 'UTC' + coalesce(t.interval_count, 1) * ('1 ' || t.interval)::interval
                        - to_timestamp(l.period_end) AT TIME ZONE 'UTC'
                    )) > CASE WHEN t.interval IN ('month', 'year') THEN 3 * 86400 ELSE 0 END + 3600 ELSE true END
                )
            )
      )
),
billed_wrong AS (
    SELECT w.invoice_id, sum(w.amount - w.expected)::bigint AS lines_off, array_agg(DISTINCT w.event_id) AS event_ids,
           jsonb_agg(jsonb_build_object(
               'subscription_item', w.subscription_item_id, 'quantity', w.quantity, 'amount', w.amount, 'expected', w.expected
           ) ORDER BY w.subscription_item_id, w.amount) AS wrong_lines,
           sum(abs(w.amount - w.expected))::bigint AS at_risk
    FROM wrong AS w
    GROUP BY w.invoice_id
)
SELECT f.account, f.invoice_id, f.number, f.status, f.customer_id, f.subscription_id, f.currency, f.total, f.subtotal, f.discount_amount,
       f.tax_amount, f.created_at, f.judged_at, f.withdrawn_at, f.event_id || coalesce(b.event_ids, '{}') AS event_ids, b.wrong_lines,
       b.lines_off, s.subtotal_off, s.total_off,
       coalesce(b.at_risk, greatest(abs(s.subtotal_off), abs(s.total_off))) AS at_risk,
       coalesce(nullif(b.lines_off, 0), CASE WHEN abs(s.subtotal_off) >= abs(s.total_off) THEN s.subtotal_off ELSE s.total_off END,
                s.subtotal_off, 0) > 0 AS too_much
FROM finalized AS f
JOIN summed AS s ON s.invoice_id = f.invoice_id
LEFT JOIN billed_wrong AS b ON b.invoice_id = f.invoice_id
WHERE b.wrong_lines IS NOT NULL OR s.subtotal_off IS NOT NULL OR s.total_off IS NOT NULL
ORDER BY f.created_at, f.invoice_id
