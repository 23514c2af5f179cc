-- due --
SELECT kind, due_at, since FROM control.due_visits WHERE tenant_id = $1;

-- call_due --
INSERT INTO control.due_visits (tenant_id, kind, due_at)
VALUES ($1, 'settle', $2)
ON CONFLICT ON CONSTRAINT due_visits_pkey DO UPDATE SET due_at = least(control.due_visits.due_at, excluded.due_at)
WHERE control.due_visits.due_at > excluded.due_at;

-- take_due --
DELETE FROM control.due_visits WHERE tenant_id = $1 AND kind = 'settle';

-- plan_judgement --
INSERT INTO control.due_visits (tenant_id, kind, due_at, since)
VALUES ($1, 'evaluate', $2, $3)
ON CONFLICT ON CONSTRAINT due_visits_pkey DO UPDATE SET due_at = excluded.due_at, since = excluded.since;

-- postpone --
-- A detector failed: it judges everything from then on again, when it is due.
INSERT INTO control.due_visits (tenant_id, kind, due_at, since)
VALUES ($1, $2, $3, $4)
ON CONFLICT ON CONSTRAINT due_visits_pkey
DO UPDATE SET due_at = excluded.due_at, since = least(control.due_visits.since, excluded.since);

-- widen --
-- What changed meanwhile lies even earlier.
UPDATE control.due_visits SET since = $3 WHERE tenant_id = $1 AND kind = $2 AND since > $3;

-- newest --
-- About when the newest event that is projected occurred: five probes of an index. Clocks of test accounts run ahead of $1.
SELECT greatest(
    (SELECT max(c.created_at) FROM charges AS c WHERE c.created_at <= $1),
    (SELECT max(i.created_at) FROM invoices AS i WHERE i.created_at <= $1),
    (SELECT max(r.created_at) FROM refunds AS r WHERE r.created_at <= $1),
    (SELECT max(d.created_at) FROM disputes AS d WHERE d.created_at <= $1),
    (SELECT max(s.created_at) FROM states AS s WHERE s.kind = 'subscription' AND s.created_at <= $1)
);

-- plan_history --
INSERT INTO control.due_visits (tenant_id, kind, due_at, since)
VALUES ($1, 'history', $2, $3)
ON CONFLICT ON CONSTRAINT due_visits_pkey
DO UPDATE SET due_at = excluded.due_at, since = least(control.due_visits.since, excluded.since);

-- advance --
-- A slice is evaluated: the next one begins at $4.
UPDATE control.due_visits SET due_at = $3, since = $4 WHERE tenant_id = $1 AND kind = $2;

-- rejudged --
DELETE FROM control.due_visits WHERE tenant_id = $1 AND kind = $2;
