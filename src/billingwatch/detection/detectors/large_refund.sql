-- candidates --
SELECT FROM refunds AS r
WHERE r.created_at BETWEEN look.since AND look.until AND r.reason IS DISTINCT FROM 'expired_uncaptured_charge'

-- incidents --
-- $1 since, $2 until, $3 minimum in whole units, $4 currencies without decimals, $5 with three, $6 multiple of the median, $7 of a large
-- charge, $8 baseline days, $9 lateness, $10 sample of a day, $11 minimum charges, $12 comparable up to, $13 comparable refunds that make it
-- usual, $14 percentile of a large charge.
WITH large AS MATERIALIZED (
    SELECT r.refund_id, r.charge_id, coalesce(r.account, '') AS account, r.amount, r.currency, r.status, r.reason, r.created_at, r.event_id,
           date_trunc('day', r.created_at, 'UTC') - $9::interval AS until,
           CASE WHEN r.status IN ('failed', 'canceled') THEN r.updated_at END AS withdrawn_at
    FROM refunds AS r
    WHERE r.created_at BETWEEN $1 AND $2
      AND r.reason IS DISTINCT FROM 'expired_uncaptured_charge'
      AND r.amount >= $3::bigint * CASE WHEN r.currency = ANY ($4::text[]) THEN 1 WHEN r.currency = ANY ($5::text[]) THEN 1000 ELSE 100 END
),
-- The sample of a day is taken before the currency is looked at: a rare one must not cost a pass over all charges.
charged AS MATERIALIZED (
    SELECT l.account, l.until, l.currency, count(*) AS charges, percentile_disc(0.5) WITHIN GROUP (ORDER BY s.amount) AS median_charge,
           percentile_disc($14::float8) WITHIN GROUP (ORDER BY s.amount) AS large_charge
    FROM (SELECT DISTINCT l.account, l.until, l.currency FROM large AS l) AS l
    CROSS JOIN generate_series(1, $8::int) AS day (number)
    CROSS JOIN LATERAL (
        SELECT c.amount, c.currency, coalesce(c.account, '') AS account
        FROM charges AS c
        WHERE c.created_at >= l.until - day.number * interval '1 day' AND c.created_at < l.until - (day.number - 1) * interval '1 day'
        ORDER BY c.created_at, c.charge_id
        LIMIT $10
    ) AS s
    WHERE s.currency = l.currency AND s.account = l.account
    GROUP BY l.account, l.until, l.currency
    HAVING count(*) >= $11
)
SELECT l.refund_id, l.charge_id, l.account, l.amount, l.currency, l.status, l.reason, l.created_at, l.event_id, l.withdrawn_at,
       c.charges AS compared_charges, c.median_charge, c.large_charge, g.comparable_refunds
FROM large AS l
JOIN charged AS c ON c.account = l.account AND c.until = l.until AND c.currency = l.currency
CROSS JOIN LATERAL (
    SELECT count(*) AS comparable_refunds
    FROM refunds AS r
    WHERE l.amount >= greatest(c.median_charge * $6::float8::numeric, c.large_charge * $7::float8::numeric)
      AND r.created_at >= l.until - $8::int * interval '1 day' AND r.created_at < l.until
      AND r.currency = l.currency AND coalesce(r.account, '') = l.account
      AND r.amount * $12::float8::numeric >= l.amount
      AND r.reason IS DISTINCT FROM 'expired_uncaptured_charge'
) AS g
WHERE l.amount >= greatest(c.median_charge * $6::float8::numeric, c.large_charge * $7::float8::numeric) AND g.comparable_refunds < $13
ORDER BY l.created_at, l.refund_id
