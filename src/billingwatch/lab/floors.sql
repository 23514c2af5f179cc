-- create_flat --
-- The columns of a tenant's events, and one key: what a table for a single account needs at least.
CREATE SCHEMA bench;
CREATE TABLE bench.flat_events (
    event_id text COLLATE "C" NOT NULL PRIMARY KEY,
    type text NOT NULL,
    api_version text,
    livemode boolean NOT NULL,
    account text,
    object_id text,
    occurred_at timestamptz NOT NULL,
    signed_at timestamptz,
    received_at timestamptz NOT NULL,
    last_received_at timestamptz NOT NULL,
    deliveries integer NOT NULL,
    disposition text NOT NULL,
    payload json NOT NULL
);

-- insert_flat --
INSERT INTO bench.flat_events (
    event_id, type, api_version, livemode, account, object_id, occurred_at, signed_at, received_at, last_received_at, deliveries, disposition, payload
)
SELECT e.event_id, e.type, e.api_version, e.livemode, e.account, e.object_id, e.occurred_at, e.signed_at, e.received_at, e.received_at, 1, 'process', e.payload
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::boolean[], $5::text[], $6::text[], $7::timestamptz[], $8::timestamptz[], $9::timestamptz[], $10::json[]
) AS e (event_id, type, api_version, livemode, account, object_id, occurred_at, signed_at, received_at, payload);

-- empty_flat --
TRUNCATE bench.flat_events;
