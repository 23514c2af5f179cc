-- event --
SELECT type, occurred_at FROM events WHERE event_id = $1;
