-- backlog --
SELECT (SELECT count(*) FROM control.pending_events) AS events,
       coalesce(extract(epoch FROM $1 - (SELECT min(received_at) FROM control.pending_events)), 0)::double precision AS age,
       (SELECT count(*) FROM control.dead_letters) AS dead_letters;
