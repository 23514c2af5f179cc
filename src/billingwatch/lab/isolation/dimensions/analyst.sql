-- revenue --
SELECT day, currency, charges, net FROM revenue_daily WHERE day >= current_date - 30 ORDER BY day, currency;

-- failures --
SELECT * FROM charges_hourly WHERE hour >= now() - interval '7 days' ORDER BY hour;

-- disputes --
SELECT * FROM disputes_open;

-- top_payers --
SELECT customer_id, currency, sum(amount_captured) AS paid
FROM charges
WHERE created_at >= now() - interval '90 days' AND status = 'succeeded'
GROUP BY customer_id, currency
ORDER BY paid DESC
LIMIT 10;
