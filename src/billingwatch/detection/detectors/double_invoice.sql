-- candidates --
-- A renewal that begins before the one before it has ended, or, where lines do not tell, that comes by more than a fiftieth of the interval
-- too early: no overlap that counts is smaller. Or one that comes while a period lasts whose invoice is older than the history.
SELECT FROM invoices AS i
CROSS JOIN LATERAL (
    SELECT min(l.period_start) AS starts, coalesce(max(l.period_end - l.period_start) * interval '1 s', i.period_end_at - i.period_start_at, interval '30 days') AS length
    FROM jsonb_to_recordset(CASE jsonb_typeof(i.lines) WHEN 'array' THEN i.lines END)
        AS l (subscription_item_id text, proration boolean, period_start bigint, period_end bigint)
    WHERE l.subscription_item_id IS NOT NULL AND NOT l.proration
) AS span
CROSS JOIN LATERAL (
    SELECT b.invoice_id, b.billing_reason, b.total, b.created_at, (
               SELECT max(l.period_end)
               FROM jsonb_to_recordset(CASE jsonb_typeof(b.lines) WHEN 'array' THEN b.lines END)
                   AS l (subscription_item_id text, proration boolean, period_end bigint)
               WHERE l.subscription_item_id IS NOT NULL AND NOT l.proration
           ) AS ends
    FROM invoices AS b
    WHERE b.subscription_id = i.subscription_id AND b.created_at > i.created_at - span.length * 1.15 AND b.created_at <= i.created_at
    UNION ALL
    SELECT NULL, 'subscription_cycle', 1, i.created_at, NULL
    FROM (
        SELECT k.facts FROM states AS k
        WHERE k.object_id = i.subscription_id AND k.kind = 'subscription' AND k.created_at < i.created_at - interval '1 hour'
        ORDER BY k.version DESC
        LIMIT 1
    ) AS s
    WHERE i.billing_reason = 'subscription_cycle' AND coalesce(
        (SELECT to_timestamp(max(t.period_end)) FROM jsonb_to_recordset(s.facts -> 'items') AS t (period_end bigint)),
        (s.facts ->> 'period_end_at')::timestamptz
    ) > i.created_at
    OFFSET 0
) AS e
WHERE i.created_at BETWEEN look.since AND look.until
  AND i.billing_reason = 'subscription_cycle' AND i.total > 0
  AND e.billing_reason = 'subscription_cycle' AND e.total > 0 AND e.invoice_id IS DISTINCT FROM i.invoice_id
  AND coalesce(e.ends > span.starts, e.created_at > i.created_at - span.length * 0.98)

-- incidents --
-- $1 since, $2 until, $3 minimum overlap, $4 quiet, $5 evidence limit.
-- i repeats e: both are renewals of one subscription, and e stood when i was made.
WITH pairs AS MATERIALIZED (
    SELECT coalesce(i.account, '') AS account, i.subscription_id, i.customer_id, i.currency, i.total, i.invoice_id, i.created_at,
           i.event_id, e.invoice_id AS earlier_id, e.created_at AS earlier_at, e.event_id AS earlier_event_id,
           CASE WHEN i.status IN ('void', 'deleted') THEN coalesce(i.voided_at, i.updated_at) END AS withdrawn_at,
           CASE WHEN e.status IN ('void', 'deleted') THEN coalesce(e.voided_at, e.updated_at) END AS earlier_withdrawn_at,
           i.status = 'paid' AND e.status = 'paid' AS both_paid, e.invoice_id IS NULL AS unseen,
           coalesce(common.period_from, e.period_end_at, e.created_at) AS period_from,
           coalesce(common.overlap, same.overlap, drift.overlap) AS overlap
    FROM invoices AS i
    CROSS JOIN LATERAL (
        SELECT coalesce(
            (
                SELECT max(l.period_end - l.period_start) * interval '1 s'
                FROM jsonb_to_recordset(CASE jsonb_typeof(i.lines) WHEN 'array' THEN i.lines END)
                    AS l (subscription_item_id text, proration boolean, period_start bigint, period_end bigint)
                WHERE l.subscription_item_id IS NOT NULL AND NOT l.proration
            ),
            i.period_end_at - i.period_start_at,
            interval '30 days'
        ) * 1.15 AS length -- The interval before can be longer: 31 days before 28.
    ) AS span
    -- By key: a join would be free to scan all invoices.
    CROSS JOIN LATERAL (
        SELECT b.invoice_id, b.account, b.status, b.billing_reason, b.currency, b.total, b.lines, b.period_start_at, b.period_end_at,
               b.voided_at, b.created_at, b.updated_at, b.event_id
        FROM invoices AS b
        WHERE b.subscription_id = i.subscription_id AND b.created_at > i.created_at - span.length AND b.created_at <= i.created_at
        UNION ALL
        -- What was billed before the history begins is known by the period that the subscription was in. A renewal tells of the next one
        -- in its own second, or about then.
        SELECT NULL, s.account, 'unseen', 'subscription_cycle', i.currency, 1, (
                   SELECT jsonb_agg(jsonb_build_object(
                       'subscription_item_id', t.item_id, 'proration', false, 'period_start', t.period_start, 'period_end', t.period_end
                   ))
                   FROM jsonb_to_recordset(s.facts -> 'items') AS t (item_id text, period_start bigint, period_end bigint, usage_type text)
                   WHERE t.usage_type IS DISTINCT FROM 'metered' -- Use is billed when its period has ended.
               ), NULL, s.began_at, NULL, s.created_at, s.created_at, s.event_id
        FROM (
            SELECT k.account, k.facts, k.created_at, k.event_id, (k.facts ->> 'period_start_at')::timestamptz AS began_at
            FROM states AS k
            WHERE k.object_id = i.subscription_id AND k.kind = 'subscription' AND k.created_at < i.created_at - interval '1 hour'
            ORDER BY k.version DESC
            LIMIT 1
        ) AS s
        WHERE i.billing_reason = 'subscription_cycle'
          AND s.facts ->> 'status' IN ('active', 'past_due', 'unpaid') AND (s.facts ->> 'mrr')::bigint > 0 AND s.began_at IS NOT NULL
          AND coalesce(
              (SELECT to_timestamp(max(t.period_end)) FROM jsonb_to_recordset(s.facts -> 'items') AS t (period_end bigint)),
              (s.facts ->> 'period_end_at')::timestamptz
          ) > i.created_at
          AND (
              SELECT f.invoice_id FROM invoices AS f
              WHERE f.subscription_id = i.subscription_id AND f.created_at > s.began_at - interval '1 day' AND f.created_at <= i.created_at
                AND f.invoice_id <> i.invoice_id
              LIMIT 1
          ) IS NULL
        OFFSET 0
    ) AS e
    -- What subscription items are billed for by both: the item of which most is.
    LEFT JOIN LATERAL (
        SELECT to_timestamp(b.period_start) AS period_from, o.seconds * interval '1 s' AS overlap,
               o.seconds >= $3::float8 * least(b.period_end - b.period_start, a.period_end - a.period_start) AS enough
        FROM jsonb_to_recordset(CASE jsonb_typeof(i.lines) WHEN 'array' THEN i.lines END)
            AS a (subscription_item_id text, proration boolean, period_start bigint, period_end bigint)
        JOIN jsonb_to_recordset(CASE jsonb_typeof(e.lines) WHEN 'array' THEN e.lines END)
            AS b (subscription_item_id text, proration boolean, period_start bigint, period_end bigint)
          ON b.subscription_item_id = a.subscription_item_id
        CROSS JOIN LATERAL (
            SELECT least(a.period_end, b.period_end) - greatest(a.period_start, b.period_start) AS seconds
        ) AS o
        WHERE NOT a.proration AND NOT b.proration AND a.period_end > a.period_start AND b.period_end > b.period_start
        ORDER BY enough DESC, o.seconds DESC, b.period_start
        LIMIT 1
    ) AS common ON true
    LEFT JOIN LATERAL (
        SELECT i.period_end_at - i.period_start_at AS overlap
        WHERE i.period_start_at = e.period_start_at AND i.period_end_at = e.period_end_at AND i.period_end_at > i.period_start_at
    ) AS same ON common.overlap IS NULL
    -- Where no lines tell, the interval that was in force at the earlier one does: the next invoice is due an interval after it.
    LEFT JOIN LATERAL (
        SELECT d.due_at - coalesce(i.period_end_at, i.created_at) AS overlap,
               d.due_at - coalesce(i.period_end_at, i.created_at)
                   >= $3::float8 * (d.due_at - coalesce(e.period_end_at, e.created_at)) AS enough
        FROM (
            SELECT s.facts FROM states AS s
            WHERE s.object_id = i.subscription_id AND s.kind = 'subscription' AND s.created_at <= i.created_at
            ORDER BY s.created_at > e.created_at, CASE WHEN s.created_at > e.created_at THEN s.version END, s.version DESC
            LIMIT 1
        ) AS known
        CROSS JOIN LATERAL (
            SELECT min(
                (coalesce(e.period_end_at, e.created_at) AT TIME ZONE 'UTC' + coalesce(t.interval_count, 1) * ('1 ' || t.interval)::interval)
                AT TIME ZONE 'UTC'
            ) AS due_at
            FROM jsonb_to_recordset(known.facts -> 'items') AS t (interval text, interval_count int)
            WHERE t.interval IN ('day', 'week', 'month', 'year')
        ) AS d
    ) AS drift ON common.overlap IS NULL
    WHERE i.created_at BETWEEN $1 AND $2
      AND i.billing_reason = 'subscription_cycle' AND e.billing_reason = 'subscription_cycle'
      AND i.total > 0 AND e.total > 0 AND i.currency = e.currency
      AND coalesce(e.account, '') = coalesce(i.account, '')
      AND (e.created_at, e.invoice_id) < (i.created_at, i.invoice_id)
      AND (e.status NOT IN ('void', 'deleted') OR coalesce(e.voided_at, e.updated_at) > i.created_at)
      AND (
          common.enough
          OR same.overlap IS NOT NULL
          OR drift.enough
      )
      -- A new beginning in between: another anchor, a trial, or an update that billed a period of its own.
      -- Asked by key, once per pair: a join would be free to scan all of them.
      AND (
          SELECT s.version FROM states AS s
          WHERE s.object_id = i.subscription_id AND s.kind = 'subscription' AND s.created_at <= i.created_at
            AND s.version > coalesce(
                (
                    SELECT max(b.version) FROM states AS b
                    WHERE b.object_id = i.subscription_id AND b.kind = 'subscription' AND b.created_at <= e.created_at
                ), ''
            )
            AND (
                (s.facts ->> 'trial_end_at')::timestamptz > e.created_at
                OR (s.facts ->> 'billing_cycle_anchor_at')::timestamptz <> (
                    SELECT (b.facts ->> 'billing_cycle_anchor_at')::timestamptz FROM states AS b
                    WHERE b.object_id = i.subscription_id AND b.kind = 'subscription' AND b.version < s.version
                    ORDER BY b.version DESC
                    LIMIT 1
                )
            )
          LIMIT 1
      ) IS NULL
      AND (
          SELECT u.invoice_id FROM invoices AS u
          CROSS JOIN LATERAL jsonb_to_recordset(CASE jsonb_typeof(u.lines) WHEN 'array' THEN u.lines END)
              AS l (subscription_item_id text, proration boolean)
          WHERE u.subscription_id = i.subscription_id AND u.created_at >= e.created_at AND u.created_at <= i.created_at
            AND u.billing_reason = 'subscription_update' AND l.subscription_item_id IS NOT NULL AND NOT l.proration
          LIMIT 1
      ) IS NULL
),
repeats AS (
    SELECT p.account, p.subscription_id, p.customer_id, p.currency, p.total, p.invoice_id, p.created_at, p.event_id,
           min(p.period_from) AS period_from, max(p.overlap) AS overlap, min(p.earlier_at) AS first_at, bool_or(p.both_paid) AS both_paid,
           bool_or(p.unseen) AS unseen,
           CASE WHEN p.withdrawn_at IS NOT NULL OR bool_and(p.earlier_withdrawn_at IS NOT NULL)
                THEN least(p.withdrawn_at, CASE WHEN bool_and(p.earlier_withdrawn_at IS NOT NULL) THEN max(p.earlier_withdrawn_at) END)
           END AS over_at
    FROM pairs AS p
    GROUP BY p.account, p.subscription_id, p.customer_id, p.currency, p.total, p.invoice_id, p.created_at, p.event_id, p.withdrawn_at
),
marks AS (
    SELECT r.account, r.subscription_id, r.customer_id, r.currency, r.total, r.invoice_id, r.created_at, r.period_from, r.overlap,
           r.first_at, r.both_paid, r.unseen, r.over_at, date_trunc('day', r.period_from, 'UTC') AS period,
           lag(r.created_at) OVER (
               PARTITION BY r.account, r.subscription_id, r.currency, date_trunc('day', r.period_from, 'UTC') ORDER BY r.created_at, r.invoice_id
           ) + $4::interval < r.created_at AS after_quiet
    FROM repeats AS r
),
numbered AS (
    SELECT m.account, m.subscription_id, m.customer_id, m.currency, m.total, m.invoice_id, m.created_at, m.period_from, m.overlap,
           m.first_at, m.both_paid, m.unseen, m.over_at, m.period,
           count(*) FILTER (WHERE m.after_quiet) OVER (
               PARTITION BY m.account, m.subscription_id, m.currency, m.period ORDER BY m.created_at, m.invoice_id
           ) AS number
    FROM marks AS m
),
islands AS (
    SELECT n.account, n.subscription_id, n.currency, n.period, n.number, min(n.customer_id) AS customer_id,
           min(n.period_from) AS period_from, min(n.created_at) AS opened_at, max(n.created_at) AS last_seen_at,
           min(n.first_at) AS first_at, max(n.overlap) AS overlap, sum(n.total)::bigint AS amount, bool_or(n.both_paid) AS both_paid,
           bool_or(n.unseen) AS unseen,
           CASE WHEN bool_and(n.over_at IS NOT NULL) THEN max(n.over_at) END AS over_at, array_agg(n.invoice_id) AS later_ids
    FROM numbered AS n
    GROUP BY n.account, n.subscription_id, n.currency, n.period, n.number
)
SELECT i.account, i.subscription_id, i.currency, i.customer_id, i.period_from, i.opened_at, i.last_seen_at, i.first_at, i.overlap, i.amount,
       i.both_paid, i.unseen, i.over_at, involved.invoices, involved.invoice_ids, involved.event_ids
FROM islands AS i
CROSS JOIN LATERAL (
    SELECT count(*) AS invoices,
           (array_agg(m.invoice_id ORDER BY m.created_at, m.invoice_id) FILTER (WHERE m.invoice_id IS NOT NULL))[:$5::int] AS invoice_ids,
           (array_agg(m.event_id ORDER BY m.created_at, m.invoice_id))[:$5::int] AS event_ids
    FROM (
        SELECT p.invoice_id, p.created_at, p.event_id FROM pairs AS p WHERE p.invoice_id = ANY (i.later_ids)
        UNION
        SELECT p.earlier_id, p.earlier_at, p.earlier_event_id FROM pairs AS p WHERE p.invoice_id = ANY (i.later_ids)
    ) AS m
) AS involved
ORDER BY i.opened_at, i.account, i.subscription_id
