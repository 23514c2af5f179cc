-- count_by_detector --
-- What was retracted never was. Numerators and denominators are of the same anomalies: those opened since $1, or all.
SELECT a.detector,
       count(*) AS fired,
       count(*) FILTER (WHERE a.status = 'open') AS open,
       count(*) FILTER (WHERE a.status = 'acknowledged') AS acknowledged,
       count(*) FILTER (WHERE a.status = 'resolved') AS resolved,
       count(*) FILTER (WHERE a.status = 'false_positive') AS false_positives
FROM anomalies AS a
WHERE ($1::timestamptz IS NULL OR a.opened_at >= $1) AND a.resolution IS DISTINCT FROM 'retracted'
GROUP BY a.detector;

-- count_reasons --
-- Reasons are free text: without a limit, the answer grows with the number of false positives.
SELECT r.detector, r.reason, r.times
FROM (
    SELECT a.detector, a.reason, count(*) AS times,
           row_number() OVER (PARTITION BY a.detector ORDER BY count(*) DESC, a.reason) AS place
    FROM anomalies AS a
    WHERE ($1::timestamptz IS NULL OR a.opened_at >= $1) AND a.status = 'false_positive'
    GROUP BY a.detector, a.reason
) AS r
WHERE r.place <= $2
ORDER BY r.times DESC, r.reason;
