-- insert_event --
-- Whether the event is new; a known one only counts its deliveries.
INSERT INTO events (
    event_id, type, api_version, livemode, account, object_id, occurred_at, signed_at, received_at, last_received_at, disposition, payload
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11)
ON CONFLICT ON CONSTRAINT events_pkey DO UPDATE
SET deliveries = events.deliveries + 1, last_received_at = greatest(events.last_received_at, excluded.last_received_at)
RETURNING deliveries = 1;

-- insert_pending --
INSERT INTO control.pending_events (tenant_id, event_id, received_at) VALUES ($1, $2, $3);
