-- events --
SELECT count(*) FROM events WHERE event_id = '';

-- all --
SELECT (SELECT count(*) FROM events WHERE event_id = ''), (SELECT count(*) FROM charges WHERE charge_id = ''),
       (SELECT count(*) FROM invoices WHERE invoice_id = ''), (SELECT count(*) FROM subscriptions WHERE subscription_id = ''),
       (SELECT count(*) FROM disputes WHERE dispute_id = ''), (SELECT count(*) FROM refunds WHERE refund_id = ''),
       (SELECT count(*) FROM customers WHERE customer_id = ''), (SELECT count(*) FROM payment_methods WHERE payment_method_id = ''),
       (SELECT count(*) FROM states WHERE object_id = ''), (SELECT count(*) FROM anomalies WHERE detector = '');

-- contexts --
SELECT sum(total_bytes)::bigint AS bytes, sum(total_bytes) FILTER (WHERE name = 'index info')::bigint AS bytes_indexes
FROM pg_backend_memory_contexts;
