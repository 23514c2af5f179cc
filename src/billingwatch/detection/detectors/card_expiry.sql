-- candidates --
-- Months are counted: a card of month m expires when month m + 1 begins. 90 days is the longest notice there may be.
SELECT FROM states AS s
WHERE s.kind = 'payment_method' AND s.created_at <= look.until
  AND (s.facts ->> 'card_exp_year')::int * 12 + (s.facts ->> 'card_exp_month')::int
      BETWEEN extract(year FROM look.since AT TIME ZONE 'UTC') * 12 + extract(month FROM look.since AT TIME ZONE 'UTC') - 1
          AND extract(year FROM look.until AT TIME ZONE 'UTC') * 12 + extract(month FROM look.until AT TIME ZONE 'UTC') + 3

-- incidents --
-- $1 since, $2 until, $3 notice, $4 quiet, $5 evidence limit.
-- Which customers a card may concern is read from its states; what was true at an instant is looked up by key.
WITH cards AS MATERIALIZED (
    SELECT DISTINCT s.object_id AS payment_method_id, s.facts ->> 'customer_id' AS customer_id, e.expires_at
    FROM states AS s
    CROSS JOIN LATERAL (
        SELECT (s.facts ->> 'card_exp_year')::int AS year, (s.facts ->> 'card_exp_month')::int AS month
    ) AS card
    CROSS JOIN LATERAL (
        SELECT CASE WHEN card.month BETWEEN 1 AND 12 AND card.year BETWEEN 1970 AND 9000
                    THEN (make_date(card.year, card.month, 1) + interval '1 month') AT TIME ZONE 'UTC' END AS expires_at
    ) AS e
    WHERE s.kind = 'payment_method' AND s.created_at <= $2::timestamptz
      AND e.expires_at > $1::timestamptz AND e.expires_at <= $2::timestamptz + $3::interval
      AND s.facts ->> 'customer_id' IS NOT NULL
),
charged AS MATERIALIZED (
    SELECT c.payment_method_id, c.customer_id, c.expires_at, sub.subscription_id, coalesce(sub.account, '') AS account
    FROM cards AS c
    JOIN subscriptions AS sub ON sub.customer_id = c.customer_id
),
found AS MATERIALIZED (
    SELECT c.account, c.payment_method_id, c.customer_id, c.expires_at, i.instant, c.subscription_id, s.currency, s.mrr, s.period_end_at,
           s.event_id, p.card_brand, p.card_last4
    FROM charged AS c
    CROSS JOIN LATERAL generate_series(
        $1::timestamptz + greatest(ceil(extract(epoch FROM c.expires_at - $3::interval - $1::timestamptz) / 86400), 0) * interval '24 hours',
        least($2::timestamptz, c.expires_at - interval '1 microsecond'),
        interval '24 hours'
    ) AS i (instant)
    CROSS JOIN LATERAL (
        SELECT sub.status, sub.collection_method, sub.currency, sub.mrr, sub.period_end_at, sub.cancel_at_period_end, sub.cancel_at,
               sub.collection_paused, sub.default_payment_method_id, t.event_id
        FROM (
            SELECT s.facts, s.event_id FROM states AS s
            WHERE s.object_id = c.subscription_id AND s.created_at <= i.instant
            ORDER BY s.version DESC
            LIMIT 1
        ) AS t
        CROSS JOIN LATERAL jsonb_populate_record(NULL::subscriptions, t.facts) AS sub
    ) AS s
    CROSS JOIN LATERAL (
        SELECT pm.customer_id, pm.card_brand, pm.card_last4, pm.card_exp_month, pm.card_exp_year
        FROM (
            SELECT s.facts FROM states AS s
            WHERE s.object_id = c.payment_method_id AND s.created_at <= i.instant
            ORDER BY s.version DESC
            LIMIT 1
        ) AS t
        CROSS JOIN LATERAL jsonb_populate_record(NULL::payment_methods, t.facts) AS pm
    ) AS p
    WHERE s.status = 'active' AND s.mrr > 0 AND s.currency IS NOT NULL AND NOT s.collection_paused
      AND s.collection_method IS DISTINCT FROM 'send_invoice'
      AND NOT s.cancel_at_period_end AND (s.cancel_at <= s.period_end_at) IS NOT TRUE
      AND s.period_end_at >= c.expires_at
      AND p.customer_id = c.customer_id
      AND (p.card_exp_year * 12 + p.card_exp_month)
          = extract(year FROM c.expires_at AT TIME ZONE 'UTC') * 12 + extract(month FROM c.expires_at AT TIME ZONE 'UTC') - 1
      AND c.payment_method_id = coalesce(s.default_payment_method_id, (
          SELECT s.facts ->> 'default_payment_method_id' FROM states AS s
          WHERE s.object_id = c.customer_id AND s.created_at <= i.instant
          ORDER BY s.version DESC
          LIMIT 1
      ))
),
marks AS (
    SELECT f.account, f.payment_method_id, f.expires_at, f.instant,
           lag(f.instant) OVER (PARTITION BY f.account, f.payment_method_id, f.expires_at ORDER BY f.instant) + $4::interval < f.instant
               AS after_quiet
    FROM found AS f
    GROUP BY f.account, f.payment_method_id, f.expires_at, f.instant
),
numbered AS (
    SELECT m.account, m.payment_method_id, m.expires_at, m.instant,
           count(*) FILTER (WHERE m.after_quiet) OVER (PARTITION BY m.account, m.payment_method_id, m.expires_at ORDER BY m.instant) AS number
    FROM marks AS m
),
islands AS (
    SELECT n.account, n.payment_method_id, n.expires_at, n.number, min(n.instant) AS opened_at, max(n.instant) AS last_seen_at
    FROM numbered AS n
    GROUP BY n.account, n.payment_method_id, n.expires_at, n.number
)
SELECT i.account, i.payment_method_id, i.expires_at, i.opened_at, i.last_seen_at, l.customer_id, l.card_brand, l.card_last4,
       l.subscriptions, l.renews_at, l.subscription_ids, l.event_ids, (
           SELECT jsonb_object_agg(a.currency, a.mrr) FROM (
               SELECT f.currency, sum(f.mrr) AS mrr FROM found AS f
               WHERE f.account = i.account AND f.payment_method_id = i.payment_method_id AND f.expires_at = i.expires_at
                 AND f.instant = i.last_seen_at
               GROUP BY f.currency
           ) AS a
       ) AS amounts
FROM islands AS i
CROSS JOIN LATERAL (
    SELECT min(f.customer_id) AS customer_id, min(f.card_brand) AS card_brand, min(f.card_last4) AS card_last4,
           count(*) AS subscriptions, min(f.period_end_at) AS renews_at,
           (array_agg(f.subscription_id ORDER BY f.subscription_id))[:$5::int] AS subscription_ids,
           (array_agg(f.event_id ORDER BY f.subscription_id))[:$5::int] AS event_ids
    FROM found AS f
    WHERE f.account = i.account AND f.payment_method_id = i.payment_method_id AND f.expires_at = i.expires_at
      AND f.instant = i.last_seen_at
) AS l
ORDER BY i.opened_at, i.account, i.payment_method_id, i.expires_at
