-- candidates --
-- look.quiet is seven times the grace. A period that turned without an invoice that plainly bills it, a renewal that was not final
-- in time, an invoice or a state that may end an anomaly.
SELECT FROM (SELECT look.quiet / 7 AS length) AS grace
WHERE EXISTS (
    SELECT FROM states AS s
    CROSS JOIN LATERAL (SELECT s.facts ->> 'subscription_id' AS subscription_id, s.created_at AS due_at) AS turn
    WHERE s.kind = 'turn' AND s.created_at > look.since - interval '1 hour' - grace.length AND s.created_at <= look.until - grace.length
      -- Asked by key, once per turn: a join would be free to scan all invoices. (Keys of invoices are in the default collation.)
      AND (
          SELECT i.invoice_id FROM invoices AS i
          WHERE i.subscription_id = turn.subscription_id
            AND i.created_at BETWEEN turn.due_at - interval '1 hour' AND turn.due_at + interval '1 hour'
            AND i.billing_reason IN ('subscription_cycle', 'subscription_create')
            AND (
                i.lines IS NULL
                OR EXISTS (
                    SELECT FROM jsonb_to_recordset(CASE jsonb_typeof(i.lines) WHEN 'array' THEN i.lines END)
                        AS l (subscription_item_id text, proration boolean, period_start bigint, period_end bigint)
                    WHERE l.subscription_item_id IS NOT NULL AND NOT l.proration
                      AND to_timestamp(l.period_start) BETWEEN turn.due_at - interval '1 hour' AND turn.due_at + interval '1 hour'
                      AND to_timestamp(l.period_end) > turn.due_at + interval '1 hour'
                )
            )
          LIMIT 1
      ) IS NULL
)
OR EXISTS (
    SELECT FROM invoices AS i
    WHERE i.created_at > look.since - interval '1 hour' - 2 * grace.length AND i.created_at <= look.until - 2 * grace.length
      AND i.billing_reason = 'subscription_cycle'
      AND (i.finalized_at > i.created_at + 2 * grace.length OR i.finalized_at IS NULL AND i.status = 'draft')
)
OR EXISTS (
    SELECT FROM anomalies AS a
    WHERE a.detector = 'silent_lapse' AND a.last_seen_at BETWEEN look.since - look.quiet - interval '1 hour' AND look.until
      AND coalesce(
          (
              SELECT i.invoice_id FROM invoices AS i
              WHERE i.subscription_id = a.evidence #>> '{objects,subscription}'
                AND i.created_at > look.since - interval '1 hour' AND i.created_at <= look.until
              LIMIT 1
          ), (
              SELECT s.object_id FROM states AS s
              WHERE s.object_id = a.evidence #>> '{objects,subscription}'
                AND s.created_at > look.since - interval '1 hour' AND s.created_at <= look.until
              LIMIT 1
          )
      ) IS NOT NULL
)

-- incidents --
-- $1 since, $2 until, $3 grace. `due_at` is when a period turned, `judged_at` the first full hour after the grace, by which all is judged.
WITH turns AS MATERIALIZED (
    SELECT s.facts ->> 'subscription_id' AS subscription_id, s.created_at AS due_at,
           to_timestamp(ceil(date_part('epoch', s.created_at + $3::interval) / 3600) * 3600) AS judged_at
    FROM states AS s
    WHERE s.kind = 'turn' AND s.created_at > $1::timestamptz - interval '1 hour' - $3::interval AND s.created_at <= $2::timestamptz - $3::interval
      -- What turned before the first event about a subscription was billed before the history begins. A subscription's own first event
      -- comes within a minute of its beginning.
      AND s.created_at >= (SELECT min(b.created_at) FROM states AS b WHERE b.kind = 'subscription') - interval '1 minute'
),
expected AS (
    SELECT t.subscription_id, t.due_at, t.judged_at, coalesce(told.account, '') AS account, told.customer_id, known.status,
           told.currency, known.version, told.event_id, told.item_ids, latest.invoice_id AS last_invoice_id,
           latest.event_id AS last_event_id,
           CASE WHEN told.priced AND NOT told.discounted THEN told.amount
                WHEN latest.total < told.amount THEN latest.total ELSE coalesce(told.amount, latest.total) END AS amount
    FROM turns AS t
    CROSS JOIN LATERAL (
        SELECT s.version, s.facts ->> 'status' AS status, (s.facts ->> 'collection_paused')::boolean AS collection_paused
        FROM states AS s
        WHERE s.object_id = t.subscription_id AND s.kind = 'subscription' AND s.created_at <= t.judged_at
        ORDER BY s.version DESC
        LIMIT 1
    ) AS known
    -- The newest state in which a period begins at the turn, or the newest of all if one ends there: then nothing told of the turn.
    CROSS JOIN LATERAL (
        SELECT s.account, s.event_id, sub.customer_id, sub.status, sub.currency, sub.discounted, item.amount, item.priced, item.item_ids
        FROM states AS s
        CROSS JOIN LATERAL jsonb_populate_record(NULL::subscriptions, s.facts) AS sub
        CROSS JOIN LATERAL (
            SELECT sum(x.amount)::bigint AS amount, bool_and(x.amount IS NOT NULL) AS priced,
                   array_agg(x.item_id ORDER BY x.item_id) AS item_ids
            FROM jsonb_to_recordset(sub.items) AS x (
                item_id text, usage_type text, amount bigint, interval text, interval_count int, period_start bigint, period_end bigint
            )
            CROSS JOIN LATERAL (
                SELECT coalesce(to_timestamp(x.period_start), sub.period_start_at) AS starts_at,
                       coalesce(to_timestamp(x.period_end), sub.period_end_at) AS ends_at
            ) AS period
            WHERE x.usage_type IS DISTINCT FROM 'metered'
              AND (
                  period.ends_at = t.due_at AND s.version = known.version
                  AND NOT sub.cancel_at_period_end AND (sub.cancel_at <= t.due_at) IS NOT TRUE
                  OR period.starts_at = t.due_at
                     AND period.ends_at AT TIME ZONE 'UTC' + CASE WHEN x.interval IN ('month', 'year') THEN 3 ELSE 0 END * interval '1 day'
                         >= period.starts_at AT TIME ZONE 'UTC'
                            + CASE WHEN x.interval IN ('day', 'week', 'month', 'year')
                                   THEN coalesce(x.interval_count, 1) * ('1 ' || x.interval)::interval END
              )
        ) AS item
        WHERE s.object_id = t.subscription_id AND s.kind = 'subscription' AND s.created_at <= t.judged_at AND item.item_ids IS NOT NULL
        ORDER BY s.version DESC
        LIMIT 1
    ) AS told
    LEFT JOIN LATERAL (
        SELECT i.invoice_id, i.event_id, i.total FROM invoices AS i
        WHERE i.subscription_id = t.subscription_id AND i.created_at < t.due_at - interval '1 hour'
          AND i.billing_reason IN ('subscription_cycle', 'subscription_create')
        ORDER BY i.created_at DESC, i.invoice_id DESC
        LIMIT 1
    ) AS latest ON true
    WHERE known.status IN ('active', 'past_due') AND NOT known.collection_paused
      AND told.status IN ('active', 'past_due') AND told.currency IS NOT NULL
      AND (told.priced AND NOT told.discounted OR latest.total IS NOT NULL)
),
missing AS (
    SELECT e.account, e.subscription_id, e.customer_id, e.status, e.currency, NULL::text AS draft_id, e.due_at, e.judged_at, e.amount,
           e.item_ids, e.last_invoice_id, e.version, array_remove(ARRAY[e.event_id, e.last_event_id], NULL) AS event_ids,
           billed.created_at AS billed_at
    FROM expected AS e
    CROSS JOIN LATERAL (
        -- The invoice whose recurring lines bill what follows. Where lines do not tell, its reason does.
        SELECT min(i.created_at) AS created_at
        FROM invoices AS i
        CROSS JOIN LATERAL (
            SELECT count(*) AS lines, bool_and(l.listed_all) AS listed_all,
                   bool_or(
                       to_timestamp(l.period_start) <= e.due_at + interval '1 hour'
                       AND to_timestamp(l.period_end) > e.due_at + interval '1 hour'
                       AND (l.subscription_item_id = ANY (e.item_ids) OR to_timestamp(l.period_start) >= e.due_at - interval '1 hour')
                   ) AS follows
            FROM jsonb_to_recordset(CASE jsonb_typeof(i.lines) WHEN 'array' THEN i.lines END)
                AS l (subscription_item_id text, proration boolean, period_start bigint, period_end bigint, listed_all boolean)
            WHERE l.subscription_item_id IS NOT NULL AND NOT l.proration
        ) AS recurring
        WHERE i.subscription_id = e.subscription_id
          AND i.created_at > e.due_at - interval '3 years' AND i.created_at <= e.judged_at + 7 * $3::interval
          AND (
              recurring.follows
              OR (recurring.lines = 0 OR recurring.listed_all IS NOT TRUE)
                 AND i.created_at >= e.due_at - interval '1 hour'
                 AND coalesce(i.billing_reason, '') NOT IN ('subscription_update', 'manual')
          )
    ) AS billed
    WHERE e.amount > 0
      AND (billed.created_at <= e.judged_at) IS NOT TRUE
      -- Whoever does not have invoices delivered here misses them all.
      AND (
          e.last_invoice_id IS NOT NULL
          OR EXISTS (
              SELECT FROM invoices AS g
              WHERE g.created_at BETWEEN e.judged_at - interval '62 days' AND e.judged_at AND g.subscription_id IS NOT NULL
          )
      )
),
stuck AS (
    SELECT coalesce(i.account, '') AS account, i.subscription_id, i.customer_id, known.status, i.currency, i.invoice_id AS draft_id,
           i.created_at AS due_at, h.judged_at, i.total AS amount, '{}'::text[] AS item_ids, NULL::text AS last_invoice_id, known.version,
           ARRAY[i.event_id] AS event_ids, i.finalized_at AS billed_at
    FROM invoices AS i
    CROSS JOIN LATERAL (
        SELECT to_timestamp(ceil(date_part('epoch', i.created_at + 2 * $3::interval) / 3600) * 3600) AS judged_at
    ) AS h
    CROSS JOIN LATERAL (
        SELECT s.version, s.facts ->> 'status' AS status, (s.facts ->> 'collection_paused')::boolean AS collection_paused
        FROM states AS s
        WHERE s.object_id = i.subscription_id AND s.kind = 'subscription' AND s.created_at <= h.judged_at
        ORDER BY s.version DESC
        LIMIT 1
    ) AS known
    WHERE i.created_at > $1::timestamptz - interval '1 hour' - 2 * $3::interval AND i.created_at <= $2::timestamptz - 2 * $3::interval
      AND i.billing_reason = 'subscription_cycle' AND i.collection_method IS DISTINCT FROM 'send_invoice'
      AND i.total > 0 AND i.currency IS NOT NULL
      AND (i.finalized_at > h.judged_at OR i.finalized_at IS NULL AND i.status = 'draft')
      AND known.status IN ('active', 'past_due') AND NOT known.collection_paused
      -- Whoever does not have it delivered here when invoices become final has nothing but drafts.
      AND EXISTS (
          SELECT FROM (
              SELECT o.finalized_at FROM invoices AS o WHERE o.created_at < i.created_at ORDER BY o.created_at DESC LIMIT 100
          ) AS before
          WHERE before.finalized_at <= h.judged_at
      )
),
lapses AS (
    SELECT m.account, m.subscription_id, m.customer_id, m.status, m.currency, m.draft_id, m.due_at, m.judged_at, m.amount, m.item_ids,
           m.last_invoice_id, m.version, m.event_ids, m.billed_at
    FROM missing AS m
    UNION ALL
    SELECT d.account, d.subscription_id, d.customer_id, d.status, d.currency, d.draft_id, d.due_at, d.judged_at, d.amount, d.item_ids,
           d.last_invoice_id, d.version, d.event_ids, d.billed_at
    FROM stuck AS d
),
followed AS (
    SELECT l.account, l.subscription_id, l.customer_id, l.status, l.currency, l.draft_id, l.due_at, l.judged_at, l.amount, l.item_ids,
           l.last_invoice_id, l.event_ids, least(l.billed_at, gone.created_at) AS ended_at
    FROM lapses AS l
    CROSS JOIN LATERAL (
        SELECT min(s.created_at) AS created_at
        FROM states AS s
        WHERE s.object_id = l.subscription_id AND s.kind = 'subscription' AND s.version > l.version
          AND s.created_at > l.judged_at AND s.created_at <= l.judged_at + 7 * $3::interval
          AND (s.facts ->> 'status' NOT IN ('active', 'past_due') OR (s.facts ->> 'collection_paused')::boolean)
    ) AS gone
)
-- Items whose periods turn on one day are one anomaly.
SELECT f.account, f.subscription_id, f.currency, f.draft_id, min(f.customer_id) AS customer_id, min(f.status) AS status,
       min(f.due_at) AS due_at, min(f.judged_at) AS opened_at, max(f.judged_at) AS last_seen_at, sum(f.amount)::bigint AS amount,
       CASE WHEN bool_and(f.ended_at IS NOT NULL) THEN max(f.ended_at) END AS ended_at, min(f.last_invoice_id) AS last_invoice_id,
       ARRAY(SELECT DISTINCT x.id FROM jsonb_array_elements_text(jsonb_path_query_array(jsonb_agg(f.item_ids), '$[*][*]')) AS x (id) ORDER BY 1)
           AS item_ids,
       ARRAY(SELECT DISTINCT x.id FROM jsonb_array_elements_text(jsonb_path_query_array(jsonb_agg(f.event_ids), '$[*][*]')) AS x (id) ORDER BY 1)
           AS event_ids
FROM followed AS f
WHERE f.judged_at BETWEEN $1 AND $2
GROUP BY f.account, f.subscription_id, f.currency, f.draft_id, date_trunc('day', f.due_at, 'UTC')
ORDER BY opened_at, f.account, f.subscription_id
