-- candidates --
SELECT FROM refunds AS r
WHERE r.created_at BETWEEN look.since AND look.until AND r.reason IS DISTINCT FROM 'expired_uncaptured_charge' AND NOT r.released

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
      AND r.reason IS DISTINCT FROM 'expired_uncaptured_charge' AND NOT r.released
      AND r.amount >= $3::bigint * CASE WHEN r.currency = ANY ($4::text[]) THEN 1 WHEN r.currency = ANY ($5::text[]) THEN 1000 ELSE 100 END
),
-- The sample of a day is taken before the currency is looked at: a rare one must not cost a pass over all charges.
charged AS MATERIALIZED (
    SELECT l.account, l.until, l.currency, count(*) AS charges, percentile_disc(0.5) WITHIN GROUP (ORDER BY s.amount) AS median_charge,
           percentile_disc($14::float8) WITHIN GROUP (ORDER BY s.amount) AS large_charge,
           (array_agg(s.amount ORDER BY s.amount))[ceil($14::float8 * (count(*) - 1))::int] AS large_of_others
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
),
candidates AS MATERIALIZED (
    SELECT l.refund_id, l.charge_id, l.account, l.amount, l.currency, l.status, l.reason, l.created_at, l.event_id, l.withdrawn_at, l.until,
           c.charges, c.median_charge, o.large_charge
    FROM large AS l
    JOIN charged AS c ON c.account = l.account AND c.until = l.until AND c.currency = l.currency
    -- Where there are few charges, the one that is given back must not be its own measure.
    CROSS JOIN LATERAL (
        SELECT CASE WHEN (
            SELECT p.amount FROM charges AS p
            WHERE p.charge_id = l.charge_id AND p.created_at >= l.until - $8::int * interval '1 day' AND p.created_at < l.until
        ) >= c.large_charge THEN c.large_of_others ELSE c.large_charge END AS large_charge
    ) AS o
    -- What is charged often is no larger than itself: one price can be that of many charges.
    WHERE l.amount >= c.median_charge * $6::float8::numeric AND l.amount > o.large_charge * $7::float8::numeric
),
-- One pass for all refunds of a day.
earlier AS MATERIALIZED (
    SELECT d.account, d.until, d.currency, e.amount
    FROM (SELECT c.account, c.until, c.currency, min(c.amount) AS amount FROM candidates AS c GROUP BY c.account, c.until, c.currency) AS d
    CROSS JOIN LATERAL (
        SELECT r.amount
        FROM refunds AS r
        WHERE r.created_at >= d.until - $8::int * interval '1 day' AND r.created_at < d.until
          AND r.currency = d.currency AND coalesce(r.account, '') = d.account
          AND r.amount * $12::float8 >= d.amount
          AND r.reason IS DISTINCT FROM 'expired_uncaptured_charge' AND NOT r.released
    ) AS e
)
SELECT c.refund_id, c.charge_id, c.account, c.amount, c.currency, c.status, c.reason, c.created_at, c.event_id, c.withdrawn_at,
       c.charges AS compared_charges, c.median_charge, c.large_charge, g.comparable_refunds
FROM candidates AS c
CROSS JOIN LATERAL (
    SELECT count(*) AS comparable_refunds
    FROM earlier AS e
    WHERE e.account = c.account AND e.until = c.until AND e.currency = c.currency AND e.amount * $12::float8 >= c.amount
) AS g
WHERE g.comparable_refunds < $13
ORDER BY c.created_at, c.refund_id
