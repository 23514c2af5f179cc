-- join --
EXPLAIN (SUMMARY, FORMAT JSON)
SELECT charges.currency, count(*), sum(charges.amount), count(refunds.refund_id), count(disputes.dispute_id)
FROM charges
LEFT JOIN refunds ON refunds.charge_id = charges.charge_id
LEFT JOIN disputes ON disputes.charge_id = charges.charge_id
WHERE charges.created_at >= now() - interval '7 days'
GROUP BY charges.currency;
