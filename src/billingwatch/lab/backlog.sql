-- count_waiting --
SELECT count(*) FROM control.pending_events;

-- any_waiting --
SELECT EXISTS (SELECT FROM control.pending_events);

-- waiting --
SELECT event_id FROM control.pending_events;
