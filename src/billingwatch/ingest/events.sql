-- list_events --
-- Newest first; the cursor is (received_at, event_id), so that pages stay stable while events arrive.
-- Every bound is a plain parameter: under row-level security, a generic plan takes
-- `coalesce($4, '-infinity')` for a filter and reads the whole index.
SELECT e.event_id, e.type, e.api_version, e.livemode, e.account, e.object_id, e.occurred_at, e.received_at, e.deliveries,
       CASE
           WHEN e.disposition <> 'process' THEN e.disposition
           WHEN d.event_id IS NOT NULL THEN 'failed'
           WHEN EXISTS (SELECT FROM control.pending_events AS p WHERE p.tenant_id = $1 AND p.event_id = e.event_id) THEN 'pending'
           ELSE 'processed'
       END AS status,
       d.error
FROM events AS e
LEFT JOIN control.dead_letters AS d ON d.tenant_id = $1 AND d.event_id = e.event_id
WHERE ($2::text IS NULL OR e.type = $2)
  AND ($3::text IS NULL OR e.object_id = $3)
  AND e.received_at >= $4::timestamptz
  AND e.received_at < $5::timestamptz
  AND (e.received_at, e.event_id) < ($6::timestamptz, $7::text)
  AND (e.received_at, e.event_id) >= ($8::timestamptz, $9::text)
ORDER BY e.received_at DESC, e.event_id DESC
LIMIT $10;

-- find_scan_floor --
-- The last row that a filtered page reads. Reads index entries only.
SELECT e.received_at, e.event_id
FROM events AS e
WHERE e.received_at >= $1::timestamptz
  AND e.received_at < $2::timestamptz
  AND (e.received_at, e.event_id) < ($3::timestamptz, $4::text)
ORDER BY e.received_at DESC, e.event_id DESC
OFFSET $5
LIMIT 1;

-- get_event --
SELECT e.event_id, e.type, e.api_version, e.livemode, e.account, e.object_id, e.occurred_at, e.received_at, e.deliveries,
       CASE
           WHEN e.disposition <> 'process' THEN e.disposition
           WHEN d.event_id IS NOT NULL THEN 'failed'
           WHEN EXISTS (SELECT FROM control.pending_events AS p WHERE p.tenant_id = $1 AND p.event_id = e.event_id) THEN 'pending'
           ELSE 'processed'
       END AS status,
       d.error,
       e.payload,
       -- The column is not in the tables of every revision that this release reads.
       CASE WHEN e.payload::text = 'null' THEN to_json(e) ->> 'body' END AS body
FROM events AS e
LEFT JOIN control.dead_letters AS d ON d.tenant_id = $1 AND d.event_id = e.event_id
WHERE e.event_id = $2;
