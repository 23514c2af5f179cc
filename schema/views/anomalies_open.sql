CREATE VIEW anomalies_open AS
SELECT a.anomaly_id,
       a.severity,
       a.status,
       a.detector,
       a.subject,
       a.summary,
       a.amounts,
       a.opened_at,
       a.last_seen_at,
       a.detected_at,
       a.acknowledged_at,
       a.reason,
       a.evidence
FROM anomalies AS a
WHERE a.status IN ('open', 'acknowledged');

COMMENT ON VIEW anomalies_open IS 'One row per anomaly that is open or acknowledged; those that are over stay in anomalies.';
COMMENT ON COLUMN anomalies_open.anomaly_id IS 'The id in the API';
COMMENT ON COLUMN anomalies_open.severity IS 'info, warning or critical';
COMMENT ON COLUMN anomalies_open.status IS 'open or acknowledged';
COMMENT ON COLUMN anomalies_open.detector IS 'Which detector found it';
COMMENT ON COLUMN anomalies_open.subject IS 'What it is about, in the terms of the detector: a charge, a customer, a currency';
COMMENT ON COLUMN anomalies_open.summary IS 'One sentence for people';
COMMENT ON COLUMN anomalies_open.amounts IS 'At risk, {currency: minor units}; never add up two currencies';
COMMENT ON COLUMN anomalies_open.opened_at IS 'When the first anomalous event happened in Stripe';
COMMENT ON COLUMN anomalies_open.last_seen_at IS 'When the latest anomalous event happened in Stripe';
COMMENT ON COLUMN anomalies_open.detected_at IS 'When it was found here';
COMMENT ON COLUMN anomalies_open.acknowledged_at IS 'When a person acknowledged it';
COMMENT ON COLUMN anomalies_open.reason IS 'What that person said';
COMMENT ON COLUMN anomalies_open.evidence IS 'Events, objects and numbers that reproduce it; its shape depends on the detector';
