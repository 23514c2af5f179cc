-- forget --
-- What other measurements recorded is not processed beside this one.
TRUNCATE control.pending_events;
