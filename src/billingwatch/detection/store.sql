-- list_anomalies --
-- Newest first; the cursor is (opened_at, anomaly_id), so that pages stay stable while anomalies arrive.
-- Every bound is a plain parameter: under row-level security, a generic plan takes
-- `coalesce($4, '-infinity')` for a filter and reads the whole index.
SELECT a.anomaly_id, a.detector, a.subject, a.fingerprint, a.status, a.severity, a.summary, a.opened_at, a.last_seen_at, a.resolved_at,
       a.resolution, a.detected_at, a.updated_at, a.acknowledged_at, a.reason, a.amounts, a.evidence,
       a.historical
FROM anomalies AS a
WHERE ($1::text IS NULL OR a.status = $1)
  AND ($2::text IS NULL OR a.severity = $2)
  AND ($3::text IS NULL OR a.detector = $3)
  AND a.opened_at >= $4::timestamptz
  AND a.opened_at < $5::timestamptz
  AND ($6::boolean OR a.resolution IS DISTINCT FROM 'retracted')
  AND ($7::boolean IS NULL OR a.historical = $7)
  AND ($8::boolean IS NULL OR $8 = EXISTS (
      SELECT FROM unnest($9::text[], $10::text[], $11::timestamptz[], $12::timestamptz[]) AS m (detector, subject, since, until)
      WHERE coalesce(m.detector = a.detector, true)
        AND coalesce(m.subject = a.subject, true)
        AND coalesce(m.since <= a.opened_at, true)
        AND coalesce(a.opened_at < m.until, true)
  ))
  AND (a.opened_at, a.anomaly_id) < ($13::timestamptz, $14::uuid)
  AND (a.opened_at, a.anomaly_id) >= ($15::timestamptz, $16::uuid)
ORDER BY a.opened_at DESC, a.anomaly_id DESC
LIMIT $17;

-- find_scan_floor --
-- The last row that a page reads. Reads index entries only.
SELECT a.opened_at, a.anomaly_id
FROM anomalies AS a
WHERE a.opened_at >= $1::timestamptz
  AND a.opened_at < $2::timestamptz
  AND (a.opened_at, a.anomaly_id) < ($3::timestamptz, $4::uuid)
ORDER BY a.opened_at DESC, a.anomaly_id DESC
OFFSET $5
LIMIT 1;

-- list_judged --
-- Of a detector, those that touch a time range, oldest first.
SELECT a.anomaly_id, a.detector, a.subject, a.fingerprint, a.status, a.severity, a.summary, a.opened_at, a.last_seen_at, a.resolved_at,
       a.resolution, a.detected_at, a.updated_at, a.acknowledged_at, a.reason, a.amounts, a.evidence,
       a.historical
FROM anomalies AS a
WHERE a.detector = $1 AND a.opened_at <= $3 AND a.last_seen_at >= $2 AND a.resolution IS DISTINCT FROM 'retracted'
ORDER BY a.opened_at, a.anomaly_id;

-- get_anomaly --
SELECT a.anomaly_id, a.detector, a.subject, a.fingerprint, a.status, a.severity, a.summary, a.opened_at, a.last_seen_at, a.resolved_at,
       a.resolution, a.detected_at, a.updated_at, a.acknowledged_at, a.reason, a.amounts, a.evidence,
       a.historical
FROM anomalies AS a
WHERE a.anomaly_id = $1;

-- lock_anomalies --
-- Those in a time range, and those that hold one of the fingerprints. Locked: a person may close one while a visit judges it.
SELECT a.anomaly_id, a.detector, a.subject, a.fingerprint, a.status, a.severity, a.summary, a.opened_at, a.last_seen_at, a.resolved_at,
       a.resolution, a.detected_at, a.updated_at, a.acknowledged_at, a.reason, a.amounts, a.evidence,
       a.historical
FROM anomalies AS a
WHERE a.detector = $1 AND (a.fingerprint = ANY ($2::text[]) OR a.opened_at <= $4 AND a.last_seen_at >= $3)
ORDER BY a.opened_at, a.anomaly_id
FOR UPDATE;

-- put_anomaly --
INSERT INTO anomalies (
    anomaly_id, detector, subject, fingerprint, status, severity, summary, opened_at, last_seen_at, resolved_at, resolution,
    detected_at, updated_at, acknowledged_at, reason, amounts, evidence, historical
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
ON CONFLICT ON CONSTRAINT anomalies_pkey DO UPDATE SET
    fingerprint = excluded.fingerprint, status = excluded.status, severity = excluded.severity, summary = excluded.summary,
    opened_at = excluded.opened_at, last_seen_at = excluded.last_seen_at, resolved_at = excluded.resolved_at,
    resolution = excluded.resolution, updated_at = excluded.updated_at, amounts = excluded.amounts, evidence = excluded.evidence,
    historical = excluded.historical;

-- delete_anomalies --
DELETE FROM anomalies WHERE anomaly_id = ANY ($1::uuid[]);

-- settle_anomalies --
UPDATE anomalies AS a
SET status = 'resolved', resolution = 'automatic', resolved_at = a.last_seen_at + d.quiet, updated_at = $3
FROM unnest($1::text[], $2::interval[]) AS d (detector, quiet)
WHERE a.detector = d.detector AND a.status IN ('open', 'acknowledged') AND a.last_seen_at + d.quiet <= $3
RETURNING a.anomaly_id, a.detector, a.severity, a.status, a.resolution, a.historical;

-- next_settlement --
SELECT least(min(a.last_seen_at + d.quiet), timestamptz '9999-01-01 00:00+00')
FROM unnest($1::text[], $2::interval[]) AS d (detector, quiet)
JOIN anomalies AS a ON a.detector = d.detector
WHERE a.status IN ('open', 'acknowledged')
HAVING count(*) > 0;

-- acknowledge --
UPDATE anomalies AS a
SET status = 'acknowledged', acknowledged_at = coalesce(a.acknowledged_at, $2), reason = coalesce($3, a.reason), updated_at = $2
WHERE a.anomaly_id = $1 AND a.status IN ('open', 'acknowledged');

-- resolve --
UPDATE anomalies AS a
SET status = 'resolved', resolution = 'manual', resolved_at = greatest($2, a.opened_at), reason = coalesce($3, a.reason), updated_at = $2
WHERE a.anomaly_id = $1 AND a.status IN ('open', 'acknowledged');

-- mark_false_positive --
-- Also said of what is over; what was retracted never was.
UPDATE anomalies AS a
SET status = 'false_positive', resolution = NULL, resolved_at = coalesce(a.resolved_at, greatest($2, a.opened_at)),
    reason = coalesce($3, a.reason), updated_at = $2
WHERE a.anomaly_id = $1 AND a.resolution IS DISTINCT FROM 'retracted';
