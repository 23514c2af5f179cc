-- candidates --
-- No verdict without some payments in the longest baseline there may be; the current ones may be missing.
SELECT FROM charges AS c
WHERE c.created_at BETWEEN look.since - interval '91 days' AND look.until - interval '7 days'
OFFSET 9

-- incidents --
-- $1 since, $2 until, $3 window, $4 its recent part, $5 baseline weeks, $6 weeks needed, $7 minimum payments, $8 minimum drop,
-- $9 minimum strength, $10 unexplained part, $11 recovered part, $12 quiet, $13 evidence limit,
-- $14 delayed payment methods, $15 long window,
-- $16 unexplained part of one currency, $17 minimum drop of all currencies, $18 what a holiday takes of them, $19 how surely it is more,
-- $20 how busy hours before must be to tell, and $21 how much of it they had, $22 weeks that count as much as what is assumed, $23 assumed excess.
-- An hour is named by its end, which belongs to it: so an instant of the grid closes the hours before it.
WITH hours AS MATERIALIZED (
    SELECT DISTINCT hour.ends_at
    FROM generate_series(0, $5::int) AS week (number)
    CROSS JOIN generate_series(
        $1::timestamptz - $15::interval + interval '1 hour' - week.number * interval '7 days',
        $2::timestamptz - week.number * interval '7 days',
        interval '1 hour'
    ) AS hour (ends_at)
),
taken AS MATERIALIZED (
    SELECT h.ends_at, p.account, p.currency, p.amount, p.payments, p.squares
    FROM hours AS h
    CROSS JOIN LATERAL (
        SELECT coalesce(c.account, '') AS account, c.currency, count(*) AS payments,
               sum(c.amount::float8) AS amount, sum(c.amount::float8 * c.amount) AS squares
        FROM charges AS c
        WHERE c.created_at > h.ends_at - interval '1 hour' AND c.created_at <= h.ends_at AND (c.status <> 'failed' OR c.payment_method_type = ANY ($14::text[]))
        GROUP BY coalesce(c.account, ''), c.currency
    ) AS p
),
-- Those that can have a usual number of payments at all: in half of at least three weeks, within the longest window. Others cost no row for
-- each hour, however many accounts and currencies there are.
busy AS (
    SELECT r.account, r.currency
    FROM (
        SELECT t.account, t.currency, t.payments, sum(t.payments) OVER (
                   PARTITION BY t.account, t.currency ORDER BY t.ends_at
                   RANGE BETWEEN greatest($3::interval, $15::interval) - interval '1 hour' PRECEDING AND CURRENT ROW
               ) AS at_once
        FROM taken AS t
    ) AS r
    GROUP BY r.account, r.currency
    HAVING max(r.at_once) >= $7::int AND sum(r.payments) >= 2 * $7::int
),
-- Nothing is joined here and below: how many rows there are is unknown to the planner, and a loop over a loop of them would be slow.
listed AS (
    SELECT t.account, t.currency, t.ends_at, t.amount, t.payments, t.squares, false AS counts_hour
    FROM taken AS t
    WHERE t.account IN (SELECT b.account FROM busy AS b)
    UNION ALL
    SELECT b.account, b.currency, h.ends_at, 0, 0, 0, true
    FROM busy AS b
    CROSS JOIN hours AS h
),
summed AS (
    SELECT l.account, l.currency, l.ends_at, l.counts_hour,
           sum(l.amount) OVER whole AS amount, sum(l.payments) OVER whole AS payments, sum(l.squares) OVER whole AS squares,
           sum(l.amount) OVER recent AS recent_amount, sum(l.payments) OVER recent AS recent_payments,
           sum(l.squares) OVER recent AS recent_squares,
           sum(l.amount) OVER long AS long_amount, sum(l.payments) OVER long AS long_payments, sum(l.squares) OVER long AS long_squares,
           -- Amounts of different currencies are never added up. Payments are.
           sum(l.payments) OVER (
               PARTITION BY l.account ORDER BY l.ends_at RANGE BETWEEN $3::interval - interval '1 hour' PRECEDING AND CURRENT ROW
           ) AS payments_of_all,
           sum(l.payments) OVER (
               PARTITION BY l.account ORDER BY l.ends_at RANGE BETWEEN $4::interval - interval '1 hour' PRECEDING AND CURRENT ROW
           ) AS recent_payments_of_all,
           sum(l.payments) OVER (
               PARTITION BY l.account ORDER BY l.ends_at RANGE BETWEEN $15::interval - interval '1 hour' PRECEDING AND CURRENT ROW
           ) AS long_payments_of_all,
           sum(l.payments) OVER (
               PARTITION BY l.account ORDER BY l.ends_at
               RANGE BETWEEN 2 * $4::interval - interval '1 hour' PRECEDING AND $4::interval PRECEDING
           ) AS earlier_payments_of_all
    FROM listed AS l
    WINDOW whole AS (
        PARTITION BY l.account, l.currency ORDER BY l.ends_at RANGE BETWEEN $3::interval - interval '1 hour' PRECEDING AND CURRENT ROW
    ), recent AS (
        PARTITION BY l.account, l.currency ORDER BY l.ends_at RANGE BETWEEN $4::interval - interval '1 hour' PRECEDING AND CURRENT ROW
    ), long AS (
        PARTITION BY l.account, l.currency ORDER BY l.ends_at RANGE BETWEEN $15::interval - interval '1 hour' PRECEDING AND CURRENT ROW
    )
),
-- Each hour is what happened at its own instant, and what was usual at that of each of the weeks after it.
gathered AS (
    SELECT s.account, s.currency, i.instant, v.length,
           max(v.amount) FILTER (WHERE week.number = 0) AS amount,
           max(v.payments) FILTER (WHERE week.number = 0)::float8 AS payments,
           array_agg(v.amount ORDER BY week.number) FILTER (WHERE week.number > 0) AS amounts,
           array_agg(v.payments::float8 ORDER BY week.number) FILTER (WHERE week.number > 0) AS counts,
           array_agg(v.squares ORDER BY week.number) FILTER (WHERE week.number > 0) AS squares,
           max(v.payments_of_all) FILTER (WHERE week.number = 0)::float8 AS payments_of_all,
           array_agg(v.payments_of_all::float8 ORDER BY week.number) FILTER (WHERE week.number > 0) AS counts_of_all,
           max(s.earlier_payments_of_all) FILTER (WHERE week.number = 0)::float8 AS earlier,
           array_agg(s.earlier_payments_of_all::float8 ORDER BY week.number) FILTER (WHERE week.number > 0) AS earlier_counts
    FROM summed AS s
    CROSS JOIN generate_series(0, $5::int) AS week (number)
    CROSS JOIN LATERAL (SELECT s.ends_at + week.number * interval '7 days' AS instant) AS i
    CROSS JOIN LATERAL (
        VALUES ($3::interval, s.amount, s.payments, s.squares, s.payments_of_all),
               ($4::interval, s.recent_amount, s.recent_payments, s.recent_squares, s.recent_payments_of_all),
               (nullif($15::interval, $3::interval), s.long_amount, s.long_payments, s.long_squares, s.long_payments_of_all)
    ) AS v (length, amount, payments, squares, payments_of_all)
    WHERE s.counts_hour AND v.length IS NOT NULL AND i.instant BETWEEN $1::timestamptz AND $2::timestamptz
    GROUP BY s.account, s.currency, i.instant, v.length
),
compared AS (
    SELECT g.account, g.currency, g.instant AS ends_at, g.length, g.amount, g.payments, u.usual, u.usual_payments, u.squares,
           g.amounts[:u.weeks] AS amounts, g.counts[:u.weeks] AS counts,
           g.payments_of_all, u.usual_payments_of_all, g.counts_of_all[:u.weeks] AS counts_of_all, g.earlier, u.usual_earlier,
           max(g.amount / nullif(u.usual, 0)) FILTER (WHERE g.length = $4::interval)
               OVER (PARTITION BY g.account, g.currency, g.instant) AS recent_part,
           max(g.amount / nullif(u.usual, 0)) FILTER (WHERE g.length = $3::interval)
               OVER (PARTITION BY g.account, g.currency, g.instant) AS whole_part,
           max(g.payments_of_all / nullif(u.usual_payments_of_all, 0)) FILTER (WHERE g.length = $3::interval)
               OVER (PARTITION BY g.account, g.currency, g.instant) AS whole_part_of_all,
           max(u.usual_payments_of_all) FILTER (WHERE g.length = $3::interval)
               OVER (PARTITION BY g.account, g.currency, g.instant) AS usual_of_window
    FROM gathered AS g
    CROSS JOIN LATERAL (
        -- Where history begins, as far as it matters to the instant.
        SELECT c.created_at FROM charges AS c
        WHERE c.created_at > g.instant - $15::interval - ($5::int + 1) * interval '7 days' AND c.created_at <= g.instant
        ORDER BY c.created_at
        LIMIT 1
    ) AS begun
    CROSS JOIN LATERAL (
        SELECT count(*)::int AS weeks, avg(w.squares) AS squares,
               percentile_cont(0.5) WITHIN GROUP (ORDER BY w.amount) AS usual,
               percentile_cont(0.5) WITHIN GROUP (ORDER BY w.payments) AS usual_payments,
               percentile_cont(0.5) WITHIN GROUP (ORDER BY w.payments_of_all) AS usual_payments_of_all,
               percentile_cont(0.5) WITHIN GROUP (ORDER BY w.earlier) AS usual_earlier
        FROM unnest(g.amounts, g.counts, g.squares, g.counts_of_all, g.earlier_counts)
            WITH ORDINALITY AS w (amount, payments, squares, payments_of_all, earlier, number)
        WHERE begun.created_at <= g.instant - w.number * interval '7 days' - greatest(g.length, $3::interval)
    ) AS u
    WHERE u.weeks >= $6::int
),
suspects AS (
    SELECT c.account, c.currency, c.ends_at, c.length, c.amount, c.payments, c.usual, c.usual_payments, c.squares, c.amounts, c.counts,
           c.payments_of_all, c.usual_payments_of_all, c.counts_of_all, c.usual_of_window,
           -- What is over shows in the long window for longer: its last half must be a drop as well.
           c.length <= $3::interval OR coalesce(c.whole_part_of_all, 0) <= 1 - $8::float8 AS all_tell
    FROM compared AS c
    CROSS JOIN LATERAL (SELECT c.usual_payments_of_all * (1 - $18::float8) AS payments) AS h
    WHERE c.usual_payments >= $7 AND c.usual > 0 AND c.amount <= c.usual * (1 - $8::float8)
      -- None usual in the recent part, at night say, tells nothing.
      AND coalesce(c.recent_part, 0) <= $11::float8
      AND (c.length <= $3::interval OR coalesce(c.whole_part, 0) <= 1 - $8::float8)
      -- The few payments of some hours may be a public holiday's and an accident, unless as many as ever paid in the hours before, which are
      -- no less busy.
      AND (
          c.length >= $3::interval
          OR (c.usual_earlier >= $20::float8 * c.usual_payments_of_all AND c.earlier >= $21::float8 * c.usual_earlier)
          OR (
              c.payments_of_all < h.payments
              AND 2 * (
                  h.payments - c.payments_of_all
                  + CASE WHEN c.payments_of_all > 0 THEN c.payments_of_all * ln(c.payments_of_all / h.payments) ELSE 0 END
              ) >= power($19::float8, 2)
          )
      )
),
marks AS (
    SELECT s.account, s.currency, s.ends_at, s.length, s.amount, s.payments, s.usual, s.usual_payments, s.amounts, s.counts,
           s.payments_of_all, s.usual_payments_of_all, g.strength,
           lag(s.ends_at) OVER (PARTITION BY s.account, s.currency ORDER BY s.ends_at, s.length) + $12::interval < s.ends_at AS after_quiet
    FROM suspects AS s
    CROSS JOIN LATERAL (
        -- Only weeks that sold less than usual explain a drop, and days of a sale do not. 1.4826 times the median of how far they fell short is the
        -- standard deviation of what is normal, and blind to outliers. Of no more weeks than are needed two may be outliers, days of a sale say,
        -- and the third what is normal: then the largest counts, which is 1.24 standard deviations on average if it is not one.
        SELECT few.factor * percentile_cont(few.place) WITHIN GROUP (ORDER BY s.usual - w.amount) FILTER (WHERE w.amount <= s.usual) AS amount,
               few.factor * percentile_cont(few.place) WITHIN GROUP (ORDER BY s.usual_payments - w.payments)
                   FILTER (WHERE w.payments <= s.usual_payments) AS payments,
               few.factor * percentile_cont(few.place) WITHIN GROUP (ORDER BY s.usual_payments_of_all - w.payments_of_all)
                   FILTER (WHERE w.payments_of_all <= s.usual_payments_of_all) AS payments_of_all,
               -- What is usual is itself known from so many weeks only.
               1 + 1.0 / cardinality(s.amounts) AS doubt,
               cardinality(s.amounts) / (cardinality(s.amounts) + $22::float8) AS trust
        FROM unnest(s.amounts, s.counts, s.counts_of_all) AS w (amount, payments, payments_of_all)
        CROSS JOIN (VALUES (true, 1.0, 1 / 1.24), (false, 0.5, 1.4826)) AS few (applies, place, factor)
        WHERE few.applies = (cardinality(s.amounts) <= $6::int)
        GROUP BY few.place, few.factor
    ) AS scatter
    CROSS JOIN LATERAL (
        -- What is odd about one day is less of two, as far as both usually have payments.
        SELECT CASE
            WHEN s.length <= $3::interval THEN 1
            ELSE greatest(s.usual_of_window, s.usual_payments_of_all - s.usual_of_window) / s.usual_payments_of_all
        END AS part
    ) AS odd
    CROSS JOIN LATERAL (
        -- Signed root of the likelihood ratio of two Poisson counts, less sure by as much as weeks scatter more than those do: of few weeks it is
        -- partly known and partly assumed.
        SELECT max(sqrt(
            2 * (n.usual - n.payments + CASE WHEN n.payments > 0 THEN n.payments * ln(n.payments / n.usual) ELSE 0 END)
            / (
                (1 + scatter.trust * greatest(power(n.scatter, 2) / n.usual - 1, 0) + (1 - scatter.trust) * $23::float8) * scatter.doubt
                + power(n.unexplained, 2) * odd.part * n.usual
            )
        )) AS strength
        FROM (
            VALUES (s.payments, s.usual_payments, scatter.payments, 1, $16::float8, true),
                   -- All currencies tell of this one if they lost as much together, and more than a holiday takes.
                   (
                       s.payments_of_all, s.usual_payments_of_all, scatter.payments_of_all,
                       1 - greatest($8::float8, $17::float8 * odd.part), $10::float8, s.all_tell
                   )
        ) AS n (payments, usual, scatter, most, unexplained, tells)
        WHERE n.payments < n.usual AND n.payments <= n.usual * n.most AND n.tells
    ) AS c
    CROSS JOIN LATERAL (
        SELECT greatest(
            (s.usual - s.amount) / sqrt((power(scatter.amount, 2) + s.squares) * scatter.doubt + power($16::float8 * s.usual, 2) * odd.part),
            c.strength
        ) AS strength
    ) AS g
    WHERE g.strength >= $9::float8
),
numbered AS MATERIALIZED (
    SELECT m.account, m.currency, m.ends_at, m.length, m.amount, m.payments, m.usual, m.usual_payments, m.amounts, m.counts,
           m.payments_of_all, m.usual_payments_of_all, m.strength,
           count(*) FILTER (WHERE m.after_quiet) OVER (PARTITION BY m.account, m.currency ORDER BY m.ends_at, m.length) AS number
    FROM marks AS m
),
islands AS (
    SELECT n.account, n.currency, n.number, min(n.ends_at) AS opened_at, max(n.ends_at) AS last_seen_at,
           max(1 - n.amount / n.usual) AS deepest
    FROM numbered AS n
    GROUP BY n.account, n.currency, n.number
)
SELECT i.account, i.currency, i.opened_at, i.last_seen_at, i.deepest, p.ends_at AS peak_at, p.length, p.amount::bigint AS amount,
       p.payments::bigint AS payments, round(p.usual)::bigint AS usual, p.usual_payments, p.amounts::bigint[] AS amounts,
       p.counts::bigint[] AS counts, p.payments_of_all::bigint AS payments_of_all, p.usual_payments_of_all, p.strength, e.event_ids, e.charge_ids
FROM islands AS i
CROSS JOIN LATERAL (
    SELECT n.ends_at, n.length, n.amount, n.payments, n.usual, n.usual_payments, n.amounts, n.counts, n.payments_of_all,
           n.usual_payments_of_all, n.strength
    FROM numbered AS n
    WHERE n.account = i.account AND n.currency = i.currency AND n.number = i.number
    ORDER BY n.usual - n.amount DESC, n.ends_at, n.length
    LIMIT 1
) AS p
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(l.event_id ORDER BY l.created_at, l.charge_id), '{}') AS event_ids,
           coalesce(array_agg(l.charge_id ORDER BY l.created_at, l.charge_id), '{}') AS charge_ids
    FROM (
        SELECT c.event_id, c.charge_id, c.created_at
        FROM charges AS c
        WHERE c.created_at > p.ends_at - p.length AND c.created_at <= p.ends_at AND (c.status <> 'failed' OR c.payment_method_type = ANY ($14::text[]))
          AND coalesce(c.account, '') = i.account AND c.currency = i.currency
        ORDER BY c.created_at DESC, c.charge_id DESC
        LIMIT $13
    ) AS l
) AS e
ORDER BY i.opened_at, i.account, i.currency
