CREATE VIEW charges_hourly AS
SELECT a.hour,
       a.account,
       a.currency,
       count(*) AS attempts,
       count(*) FILTER (WHERE a.outcome = 'succeeded') AS succeeded,
       count(*) FILTER (WHERE a.outcome = 'failed') AS failed,
       count(*) FILTER (WHERE a.outcome = 'blocked') AS blocked,
       count(*) FILTER (WHERE a.outcome = 'pending') AS pending,
       round(
           count(*) FILTER (WHERE a.outcome = 'failed')::numeric
           / nullif(count(*) FILTER (WHERE a.outcome IN ('succeeded', 'failed')), 0),
           4
       ) AS failure_rate
FROM (
    SELECT date_trunc('hour', c.created_at, 'UTC') AS hour, c.account, c.currency,
           CASE
               WHEN c.status = 'failed' AND c.outcome_type = 'blocked' THEN 'blocked'
               WHEN c.status = 'failed' THEN 'failed'
               WHEN c.status IN ('succeeded', 'expired') THEN 'succeeded'
               ELSE 'pending'
           END AS outcome
    FROM charges AS c
) AS a
GROUP BY a.hour, a.account, a.currency;

COMMENT ON VIEW charges_hourly IS 'One row per UTC hour, account and currency with charges. Each retry is an attempt of its own; attempts = succeeded + failed + blocked + pending.';
COMMENT ON COLUMN charges_hourly.hour IS 'Beginning of the UTC hour in which the charges were made';
COMMENT ON COLUMN charges_hourly.account IS 'Connected account (acct_…) that charged; null: your own';
COMMENT ON COLUMN charges_hourly.currency IS 'ISO 4217, lower case';
COMMENT ON COLUMN charges_hourly.attempts IS 'All charges, retries included';
COMMENT ON COLUMN charges_hourly.succeeded IS 'Paid or authorized, also when the authorization expired uncaptured';
COMMENT ON COLUMN charges_hourly.failed IS 'Declined by the issuer or failed otherwise; without blocked';
COMMENT ON COLUMN charges_hourly.blocked IS 'Blocked by Stripe Radar before they reached the issuer';
COMMENT ON COLUMN charges_hourly.pending IS 'Not decided yet, as bank debits are for days';
COMMENT ON COLUMN charges_hourly.failure_rate IS 'failed / (succeeded + failed), 0 to 1; blocked and pending count on neither side; null when nothing else is there';
