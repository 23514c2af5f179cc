-- stirred --
-- One round trip tells which of the given ranges are worth judging: those that a stored anomaly overlaps or where something anomalous
-- can be. The engine puts the detectors' own candidates in place of the marker. `touched` bounds the anomalies that may be continued.
SELECT look.number, touched.since, touched.until
FROM unnest($1::int[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::interval[]) AS look (number, detector, since, until, quiet)
CROSS JOIN LATERAL (
    SELECT min(a.opened_at) AS since, max(a.last_seen_at) AS until,
           bool_or(a.opened_at <= look.until AND a.last_seen_at >= look.since) AS overlapping
    FROM anomalies AS a
    WHERE a.detector = look.detector
      AND a.last_seen_at >= look.since - look.quiet
      AND a.opened_at <= look.until + look.quiet
      AND a.resolution IS DISTINCT FROM 'retracted'
) AS touched
WHERE touched.overlapping OR CASE look.detector /* candidates */ END;

-- beginning --
-- The first instant that detectors may have something to say about.
SELECT least(
    (SELECT min(c.created_at) FROM charges AS c),
    (SELECT min(i.created_at) FROM invoices AS i),
    (SELECT min(r.created_at) FROM refunds AS r),
    (SELECT min(d.created_at) FROM disputes AS d),
    (SELECT min(s.created_at) FROM states AS s WHERE s.kind = 'subscription'),
    (SELECT min(e.received_at) FROM events AS e)
);
