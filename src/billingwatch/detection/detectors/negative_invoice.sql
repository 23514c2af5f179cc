-- candidates --
SELECT FROM invoices AS i WHERE i.created_at BETWEEN look.since AND look.until AND i.total < 0

-- incidents --
-- $1 since, $2 until, $3 minimum amount.
SELECT coalesce(i.account, '') AS account, i.invoice_id, i.number, i.status, i.customer_id, i.subscription_id, i.billing_reason, i.currency,
       i.total, i.created_at, i.finalized_at, i.event_id,
       CASE WHEN i.status IN ('void', 'deleted') THEN coalesce(i.voided_at, i.updated_at) END AS withdrawn_at
FROM invoices AS i
WHERE i.created_at BETWEEN $1 AND $2
  AND i.total <= -$3::bigint
  AND i.currency IS NOT NULL
  AND (i.status IN ('open', 'paid', 'uncollectible') OR i.finalized_at IS NOT NULL AND i.status IN ('void', 'deleted'))
  AND i.billing_reason IS DISTINCT FROM 'subscription_update'
  -- The credit of a downgrade may wait for the next renewal: what is left without prorations is then no credit. Tax follows the lines,
  -- so the subtotal is asked. Of a list that Stripe cut short the credits that are not seen get the benefit of the doubt.
  AND NOT EXISTS (
      SELECT FROM (
          SELECT sum(l.amount) FILTER (WHERE l.proration) AS credit, bool_and(l.listed_all) AS listed_all
          FROM jsonb_to_recordset(CASE jsonb_typeof(i.lines) WHEN 'array' THEN i.lines END)
              AS l (amount bigint, proration boolean, listed_all boolean)
      ) AS prorations
      WHERE prorations.credit < 0 AND (coalesce(i.subtotal, i.total) >= prorations.credit OR prorations.listed_all IS FALSE)
  )
ORDER BY i.created_at, i.invoice_id
