-- candidates --
-- Up as well as down: coming back ends an anomaly that began before the look.
SELECT FROM states AS s
CROSS JOIN LATERAL (
    SELECT p.facts FROM states AS p WHERE p.object_id = s.object_id AND p.version < s.version ORDER BY p.version DESC LIMIT 1
) AS earlier
WHERE s.kind = 'subscription' AND s.created_at BETWEEN look.since AND look.until AND s.facts -> 'mrr' <> earlier.facts -> 'mrr'

-- incidents --
-- $1 since, $2 until, $3 quiet, $4 grace, $5 minimum share, $6 discount of a longer interval, $7 lateness, $8 sample of states,
-- $9 evidence limit.
WITH falls AS MATERIALIZED (
    SELECT s.object_id, s.version, coalesce(s.account, '') AS account, s.created_at, s.event_id, s.facts, earlier.facts AS facts_before
    FROM states AS s
    CROSS JOIN LATERAL (
        SELECT p.facts FROM states AS p WHERE p.object_id = s.object_id AND p.version < s.version ORDER BY p.version DESC LIMIT 1
    ) AS earlier
    WHERE s.kind = 'subscription' AND s.created_at BETWEEN $1 AND $2
      AND (s.facts ->> 'mrr')::bigint < (earlier.facts ->> 'mrr')::bigint
      AND s.facts ->> 'currency' = earlier.facts ->> 'currency'
      AND s.facts ->> 'status' IN ('active', 'past_due')
      AND earlier.facts ->> 'status' IN ('active', 'past_due', 'trialing')
),
downgrades AS MATERIALIZED (
    SELECT f.object_id, f.version, f.account, f.created_at, f.event_id, sub.customer_id, sub.currency, before.mrr AS mrr_before, sub.mrr AS mrr_after,
           sold_before.quantity AS quantity_before, sold.quantity AS quantity_after, sold_before.prices AS prices_before, sold.prices AS prices_after,
           lag(f.created_at) OVER subject + $3::interval < f.created_at AS after_quiet
    FROM falls AS f
    CROSS JOIN LATERAL jsonb_populate_record(NULL::subscriptions, f.facts) AS sub
    CROSS JOIN LATERAL jsonb_populate_record(NULL::subscriptions, f.facts_before) AS before
    CROSS JOIN LATERAL (
        SELECT sum((i.item ->> 'quantity')::bigint)::bigint AS quantity, jsonb_agg(i.item -> 'price_id' ORDER BY i.item ->> 'price_id') AS prices,
               max((i.item ->> 'interval_count')::int * CASE i.item ->> 'interval' WHEN 'day' THEN 1 WHEN 'week' THEN 7 WHEN 'month' THEN 30 ELSE 365 END) AS days
        FROM jsonb_array_elements(sub.items) AS i (item)
        WHERE i.item ->> 'usage_type' IS DISTINCT FROM 'metered'
    ) AS sold
    CROSS JOIN LATERAL (
        SELECT sum((i.item ->> 'quantity')::bigint)::bigint AS quantity, jsonb_agg(i.item -> 'price_id' ORDER BY i.item ->> 'price_id') AS prices,
               max((i.item ->> 'interval_count')::int * CASE i.item ->> 'interval' WHEN 'day' THEN 1 WHEN 'week' THEN 7 WHEN 'month' THEN 30 ELSE 365 END) AS days
        FROM jsonb_array_elements(before.items) AS i (item)
        WHERE i.item ->> 'usage_type' IS DISTINCT FROM 'metered'
    ) AS sold_before
    WHERE before.mrr > 0
      AND before.mrr - sub.mrr >= before.mrr * $5::float8::numeric
      -- A trial that ends in a plan for nothing never was worth anything.
      AND (before.status <> 'trialing' OR sub.mrr > 0)
      AND (sold.days > sold_before.days AND sub.mrr >= before.mrr * (1 - $6::float8::numeric)) IS NOT TRUE
      AND NOT EXISTS (
          SELECT FROM states AS r
          WHERE r.object_id = f.object_id AND r.version > f.version AND r.created_at <= f.created_at + $4::interval
            AND (r.facts ->> 'mrr')::bigint >= before.mrr AND r.facts ->> 'currency' = sub.currency
      )
    WINDOW subject AS (PARTITION BY f.account, f.object_id, sub.currency ORDER BY f.created_at, f.version)
),
numbered AS (
    SELECT d.object_id, d.version, d.account, d.created_at, d.event_id, d.customer_id, d.currency, d.mrr_before, d.mrr_after, d.quantity_before,
           d.quantity_after, d.prices_before, d.prices_after,
           count(*) FILTER (WHERE d.after_quiet) OVER (PARTITION BY d.account, d.object_id, d.currency ORDER BY d.created_at, d.version) AS number
    FROM downgrades AS d
),
islands AS MATERIALIZED (
    SELECT n.account, n.object_id, n.currency, min(n.created_at) AS opened_at, max(n.created_at) AS last_seen_at, max(n.version) AS last_version,
           max(n.mrr_before) AS mrr_before, (array_agg(n.mrr_after ORDER BY n.version DESC))[1] AS mrr_after,
           (array_agg(n.quantity_before ORDER BY n.version))[1] AS quantity_before,
           (array_agg(n.quantity_after ORDER BY n.version DESC))[1] AS quantity_after,
           (array_agg(n.prices_before ORDER BY n.version))[1] AS prices_before,
           (array_agg(n.prices_after ORDER BY n.version DESC))[1] AS prices_after,
           (array_agg(n.customer_id ORDER BY n.version DESC))[1] AS customer_id,
           (array_agg(n.event_id ORDER BY n.version))[:$9::int] AS event_ids, count(*) AS downgrades
    FROM numbered AS n
    GROUP BY n.account, n.object_id, n.currency, n.number
),
-- What the subscriptions heard of last are worth, as far as it had all arrived that day.
known AS MATERIALIZED (
    SELECT d.until, k.account, k.facts ->> 'currency' AS currency, count(*) AS subscriptions, sum((k.facts ->> 'mrr')::bigint)::bigint AS mrr
    FROM (SELECT DISTINCT date_trunc('day', i.opened_at, 'UTC') - $7::interval AS until FROM islands AS i) AS d
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (h.object_id) coalesce(h.account, '') AS account, h.facts
        FROM (
            SELECT s.object_id, s.version, s.account, s.facts
            FROM states AS s
            WHERE s.kind = 'subscription' AND s.created_at < d.until
            ORDER BY s.created_at DESC, s.object_id, s.version
            LIMIT $8
        ) AS h
        ORDER BY h.object_id, h.version DESC
    ) AS k
    WHERE k.facts ->> 'status' IN ('active', 'past_due') AND k.facts ->> 'mrr' IS NOT NULL
    GROUP BY d.until, k.account, k.facts ->> 'currency'
)
SELECT i.account, i.object_id AS subscription_id, i.customer_id, i.currency, i.opened_at, i.last_seen_at, i.mrr_before, i.mrr_after,
       i.quantity_before, i.quantity_after, i.prices_before, i.prices_after, i.event_ids, i.downgrades,
       coalesce(k.subscriptions, 0) AS known_subscriptions, coalesce(k.mrr, 0) AS known_mrr, back.created_at AS returned_at
FROM islands AS i
LEFT JOIN known AS k
  ON k.account = i.account AND k.currency = i.currency AND k.until = date_trunc('day', i.opened_at, 'UTC') - $7::interval
LEFT JOIN LATERAL (
    SELECT r.created_at
    FROM states AS r
    WHERE r.object_id = i.object_id AND r.version > i.last_version AND r.created_at <= i.last_seen_at + $3::interval
      AND (r.facts ->> 'mrr')::bigint >= i.mrr_before AND r.facts ->> 'currency' = i.currency
    ORDER BY r.version
    LIMIT 1
) AS back ON true
ORDER BY i.opened_at, i.account, i.object_id
