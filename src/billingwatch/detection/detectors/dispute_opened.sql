-- candidates --
SELECT FROM disputes AS d WHERE d.created_at BETWEEN look.since AND look.until AND d.kind IN ('dispute', 'inquiry')

-- incidents --
-- $1 since, $2 until, $3 lateness, $4 sample of charges, $5 minimum amount.
-- What is usual comes from the newest charges of which none can still be on its way; whether they succeeded later does not matter.
SELECT coalesce(d.account, '') AS account, d.dispute_id, d.kind, d.status, d.reason, d.amount, d.currency, d.charge_id, d.payment_intent_id,
       d.evidence_due_at, d.created_at, d.event_id, c.customer_id, c.amount AS charge_amount, c.currency AS charge_currency,
       u.charges AS usual_charges, u.amount AS usual_amount,
       CASE WHEN d.status IN ('won', 'lost', 'warning_closed', 'prevented', 'charge_refunded') THEN d.updated_at END AS ended_at
FROM disputes AS d
LEFT JOIN LATERAL (
    SELECT k.customer_id, k.amount, k.currency FROM charges AS k WHERE k.charge_id = d.charge_id LIMIT 1
) AS c ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS charges, percentile_disc(0.5) WITHIN GROUP (ORDER BY n.amount) AS amount
    FROM (
        SELECT k.account, k.amount, k.currency
        FROM charges AS k
        WHERE k.created_at < d.created_at - $3::interval
        ORDER BY k.created_at DESC, k.charge_id DESC
        LIMIT $4
    ) AS n
    WHERE n.currency = d.currency AND coalesce(n.account, '') = coalesce(d.account, '')
) AS u
WHERE d.created_at BETWEEN $1 AND $2
  AND d.kind IN ('dispute', 'inquiry')
  AND (d.amount < $5::bigint) IS NOT TRUE
ORDER BY d.created_at, d.dispute_id
