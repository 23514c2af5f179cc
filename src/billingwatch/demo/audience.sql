-- pending --
SELECT EXISTS (SELECT FROM control.pending_events);
