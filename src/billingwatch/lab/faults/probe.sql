-- oldest_age --
-- Seconds. An event that the service's clock dated later than now counts 0.
SELECT greatest(coalesce(extract(epoch FROM clock_timestamp() - min(received_at)), 0), 0)::float8 FROM control.pending_events;
