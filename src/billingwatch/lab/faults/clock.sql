-- overdue --
-- Tenants whose detectors of time sleep for longer than their interval of an hour.
SELECT count(*) FROM control.due_visits WHERE kind = 'evaluate' AND due_at > now() + interval '2 hours';
