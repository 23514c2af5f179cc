-- charges --
-- $1 charges over the last $2 days; every twelfth failed, every fortieth was refunded, a third in euros. Customers bear the tenant, $3.
INSERT INTO charges (
    charge_id, payment_id, from_invoice, customer_id, payer, amount, amount_captured, amount_refunded, currency, status, captured, disputed,
    outcome_type, payment_method_type, card_country, created_at, updated_at, event_id, version
)
SELECT 'ch_lab_' || lpad(n::text, 9, '0'), 'pi_lab_' || n, false, 'cus_' || $3::integer || '_' || n % 997, 'cus_' || $3::integer || '_' || n % 997,
       500 + n * 7919 % 20000, CASE WHEN n % 12 = 0 THEN 0 ELSE 500 + n * 7919 % 20000 END,
       CASE WHEN n % 40 = 0 AND n % 12 <> 0 THEN 500 + n * 7919 % 20000 ELSE 0 END,
       CASE WHEN n % 3 = 0 THEN 'eur' ELSE 'usd' END, CASE WHEN n % 12 = 0 THEN 'failed' ELSE 'succeeded' END, n % 12 <> 0, false,
       CASE WHEN n % 12 = 0 THEN 'issuer_declined' ELSE 'authorized' END, 'card', 'US', at, at, 'evt_lab_' || lpad(n::text, 9, '0'), n::text
FROM generate_series(1, $1::integer) AS n,
     LATERAL (SELECT now() - make_interval(secs => $2::integer * 86400.0 * n / $1::integer)) AS times (at);

-- events --
-- $1 events of 3.5 KB over the last $2 days. What does not compress is as much of them as in Stripe's.
INSERT INTO events (
    event_id, type, livemode, object_id, occurred_at, received_at, last_received_at, disposition, payload
)
SELECT 'evt_lab_' || lpad(n::text, 9, '0'), 'charge.succeeded', true, 'ch_lab_' || lpad(n::text, 9, '0'), at, at, at, 'process',
       json_build_object('id', 'evt_lab_' || n, 'type', 'charge.succeeded', 'noise', (
           SELECT string_agg(md5(n::text || part), '') FROM generate_series(1, 30) AS part
       ), 'rest', repeat('"description": null, "destination": null, ', 60))
FROM generate_series(1, $1::integer) AS n,
     LATERAL (SELECT now() - make_interval(secs => $2::integer * 86400.0 * n / $1::integer)) AS times (at);

-- event --
SELECT type, occurred_at FROM events WHERE event_id = $1;

-- analyze --
ANALYZE;

-- checkpoint --
CHECKPOINT;
