CREATE VIEW revenue_daily AS
SELECT (c.created_at AT TIME ZONE 'UTC')::date AS day,
       c.account,
       c.currency,
       count(*) AS charges,
       sum(c.amount_captured)::bigint AS gross,
       sum(least(c.amount_refunded - c.refunds_failed, c.amount_captured))::bigint AS refunded,
       sum(c.amount_captured - least(c.amount_refunded - c.refunds_failed, c.amount_captured))::bigint AS net
FROM charges AS c
WHERE c.status = 'succeeded' AND c.captured
GROUP BY 1, 2, 3;

COMMENT ON VIEW revenue_daily IS 'One row per UTC day, account and currency with captured charges. Amounts are in minor units; never add up two currencies. Fees and lost disputes are not deducted.';
COMMENT ON COLUMN revenue_daily.day IS 'UTC day on which the charges were made, even if captured or refunded later';
COMMENT ON COLUMN revenue_daily.account IS 'Connected account (acct_…) whose revenue it is; null: your own';
COMMENT ON COLUMN revenue_daily.currency IS 'ISO 4217, lower case; the currency of all amounts of the row';
COMMENT ON COLUMN revenue_daily.charges IS 'Captured charges';
COMMENT ON COLUMN revenue_daily.gross IS 'Captured, minor units';
COMMENT ON COLUMN revenue_daily.refunded IS 'Refunded to date of the charges of this day, whenever that was, minor units: a past day changes when it is refunded. A refund that failed or was canceled does not count, nor does an authorized part that was never captured';
COMMENT ON COLUMN revenue_daily.net IS 'gross less refunded, minor units; before fees and disputes';
