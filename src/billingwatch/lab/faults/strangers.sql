-- insert_history --
-- Old events of the tenant, so that a filter on a type that no event has reads all of them.
INSERT INTO events (event_id, type, livemode, occurred_at, received_at, last_received_at, disposition, payload)
SELECT 'evt_history_' || n, 'customer.updated', true, t.at, t.at, t.at, 'ignored', '{}'
FROM generate_series(1, $1::int) AS g (n), LATERAL (SELECT $2::timestamptz - n * interval '1 minute') AS t (at);
