-- events --
SELECT event_id, deliveries FROM events WHERE event_id = ANY ($1::text[]);

-- charges --
SELECT event_id FROM charges WHERE event_id = ANY ($1::text[]);

-- anomalies --
SELECT ARRAY(SELECT jsonb_array_elements_text(evidence -> 'event_ids')) AS event_ids
FROM anomalies
WHERE detector = 'duplicate_charge';

-- pending --
SELECT tenant_id, event_id FROM control.pending_events WHERE event_id = ANY ($1::text[]);

-- rejudge_now --
-- A detector that failed judges again after 10 minutes; the bench does not wait for that.
UPDATE control.due_visits SET due_at = now() WHERE kind LIKE 'rejudge:%' AND due_at > now();

-- postponed --
SELECT count(*) FROM control.due_visits WHERE kind LIKE 'rejudge:%';

-- dead --
SELECT event_id FROM control.dead_letters WHERE event_id = ANY ($1::text[]);
