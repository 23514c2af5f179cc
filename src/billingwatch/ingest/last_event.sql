-- last_event --
SELECT e.received_at, e.type FROM events AS e ORDER BY e.received_at DESC, e.event_id DESC LIMIT 1;
