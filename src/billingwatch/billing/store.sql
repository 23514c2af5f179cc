-- upsert_charges --
-- The last SELECT sees the table as it was before the INSERT, so that the caller can tell what changed. No key comes twice.
WITH written AS (
    INSERT INTO charges (
        charge_id, payment_id, payment_intent_id, invoice_id, from_invoice, customer_id, payer, amount, amount_captured,
        amount_refunded, currency, status, captured, disputed, failure_code, decline_code, outcome_type, risk_level,
        payment_method_type, card_fingerprint, card_country, order_reference, destination, amount_released, account, created_at, updated_at,
        event_id, version
    )
    SELECT charge_id, payment_id, payment_intent_id, invoice_id, from_invoice, customer_id, payer, amount, amount_captured,
           amount_refunded, currency, status, captured, disputed, failure_code, decline_code, outcome_type, risk_level,
           payment_method_type, card_fingerprint, card_country, order_reference, destination, amount_released, account, created_at,
           updated_at, event_id, version
    FROM json_populate_recordset(NULL::charges, $1::json)
    ON CONFLICT ON CONSTRAINT charges_pkey DO UPDATE SET (
        payment_id, payment_intent_id, invoice_id, from_invoice, customer_id, payer, amount, amount_captured, amount_refunded,
        currency, status, captured, disputed, failure_code, decline_code, outcome_type, risk_level, payment_method_type,
        card_fingerprint, card_country, order_reference, destination, amount_released, account, created_at, updated_at,
        event_id, version
    ) = ROW (
        excluded.payment_id, excluded.payment_intent_id, excluded.invoice_id, excluded.from_invoice, excluded.customer_id,
        excluded.payer, excluded.amount, excluded.amount_captured, excluded.amount_refunded, excluded.currency, excluded.status,
        excluded.captured, excluded.disputed, excluded.failure_code, excluded.decline_code, excluded.outcome_type,
        excluded.risk_level, excluded.payment_method_type, excluded.card_fingerprint, excluded.card_country,
        excluded.order_reference, excluded.destination, excluded.amount_released, excluded.account, excluded.created_at,
        excluded.updated_at, excluded.event_id, excluded.version
    )
    WHERE excluded.version > charges.version
)
SELECT charge_id, payment_id, payment_intent_id, invoice_id, from_invoice, customer_id, payer, amount, amount_captured,
       amount_refunded, currency, status, captured, disputed, failure_code, decline_code, outcome_type, risk_level,
       payment_method_type, card_fingerprint, card_country, order_reference, destination, amount_released, account, created_at,
       version
FROM charges
WHERE charge_id = ANY ($2::text[]);

-- upsert_invoices --
-- Payments of an invoice are kept whichever snapshot is newest: `written` adds them to the winner, `linked` to a row that stays.
WITH given AS (
    SELECT invoice_id, customer_id, subscription_id, number, status, billing_reason, collection_method, currency, total, subtotal,
           amount_due, amount_paid, amount_remaining, starting_balance, ending_balance, attempt_count, next_payment_attempt_at,
           period_start_at, period_end_at, due_at, finalized_at, paid_at, voided_at, payment_ids, lines, discount_amount, tax_amount, account, created_at,
           updated_at, event_id, version
    FROM json_populate_recordset(NULL::invoices, $1::json)
),
linked AS (
    UPDATE invoices
    SET payment_ids = ARRAY(SELECT DISTINCT p.id COLLATE "C" FROM unnest(invoices.payment_ids || given.payment_ids) AS p (id) ORDER BY 1)
    FROM given
    WHERE invoices.invoice_id = given.invoice_id
      AND invoices.invoice_id = ANY ($2::text[])
      AND invoices.version >= given.version
      AND NOT given.payment_ids <@ invoices.payment_ids
),
written AS (
    INSERT INTO invoices (
        invoice_id, customer_id, subscription_id, number, status, billing_reason, collection_method, currency, total, subtotal,
        amount_due, amount_paid, amount_remaining, starting_balance, ending_balance, attempt_count, next_payment_attempt_at,
        period_start_at, period_end_at, due_at, finalized_at, paid_at, voided_at, payment_ids, lines, discount_amount, tax_amount, account, created_at,
        updated_at, event_id, version
    )
    SELECT invoice_id, customer_id, subscription_id, number, status, billing_reason, collection_method, currency, total, subtotal,
           amount_due, amount_paid, amount_remaining, starting_balance, ending_balance, attempt_count, next_payment_attempt_at,
           period_start_at, period_end_at, due_at, finalized_at, paid_at, voided_at, payment_ids, lines, discount_amount, tax_amount, account, created_at,
           updated_at, event_id, version
    FROM given
    ON CONFLICT ON CONSTRAINT invoices_pkey DO UPDATE SET (
        customer_id, subscription_id, number, status, billing_reason, collection_method, currency, total, subtotal, amount_due,
        amount_paid, amount_remaining, starting_balance, ending_balance, attempt_count, next_payment_attempt_at, period_start_at,
        period_end_at, due_at, finalized_at, paid_at, voided_at, payment_ids, lines, discount_amount, tax_amount, account, created_at, updated_at, event_id,
        version
    ) = ROW (
        excluded.customer_id, excluded.subscription_id, excluded.number, excluded.status, excluded.billing_reason,
        excluded.collection_method, excluded.currency, excluded.total, excluded.subtotal, excluded.amount_due, excluded.amount_paid,
        excluded.amount_remaining, excluded.starting_balance, excluded.ending_balance, excluded.attempt_count,
        excluded.next_payment_attempt_at, excluded.period_start_at, excluded.period_end_at, excluded.due_at, excluded.finalized_at,
        excluded.paid_at, excluded.voided_at,
        ARRAY(SELECT DISTINCT p.id COLLATE "C" FROM unnest(invoices.payment_ids || excluded.payment_ids) AS p (id) ORDER BY 1),
        excluded.lines, excluded.discount_amount, excluded.tax_amount, excluded.account, excluded.created_at, excluded.updated_at, excluded.event_id, excluded.version
    )
    WHERE excluded.version > invoices.version
)
SELECT invoice_id, customer_id, subscription_id, number, status, billing_reason, collection_method, currency, total, subtotal,
       amount_due, amount_paid, amount_remaining, starting_balance, ending_balance, attempt_count, next_payment_attempt_at,
       period_start_at, period_end_at, due_at, finalized_at, paid_at, voided_at, payment_ids, lines, discount_amount, tax_amount, account, created_at, version
FROM invoices
WHERE invoice_id = ANY ($2::text[]);

-- upsert_subscriptions --
-- As upsert_charges.
WITH written AS (
    INSERT INTO subscriptions (
        subscription_id, customer_id, status, collection_method, currency, items, mrr, period_start_at, period_end_at,
        billing_cycle_anchor_at, trial_end_at, cancel_at_period_end, cancel_at, canceled_at, ended_at, collection_paused,
        discounted, default_payment_method_id, account, created_at, updated_at, event_id, version
    )
    SELECT subscription_id, customer_id, status, collection_method, currency, items, mrr, period_start_at, period_end_at,
           billing_cycle_anchor_at, trial_end_at, cancel_at_period_end, cancel_at, canceled_at, ended_at, collection_paused,
           discounted, default_payment_method_id, account, created_at, updated_at, event_id, version
    FROM json_populate_recordset(NULL::subscriptions, $1::json)
    ON CONFLICT ON CONSTRAINT subscriptions_pkey DO UPDATE SET (
        customer_id, status, collection_method, currency, items, mrr, period_start_at, period_end_at, billing_cycle_anchor_at,
        trial_end_at, cancel_at_period_end, cancel_at, canceled_at, ended_at, collection_paused, discounted,
        default_payment_method_id, account, created_at, updated_at, event_id, version
    ) = ROW (
        excluded.customer_id, excluded.status, excluded.collection_method, excluded.currency, excluded.items, excluded.mrr,
        excluded.period_start_at, excluded.period_end_at, excluded.billing_cycle_anchor_at, excluded.trial_end_at,
        excluded.cancel_at_period_end, excluded.cancel_at, excluded.canceled_at, excluded.ended_at, excluded.collection_paused,
        excluded.discounted, excluded.default_payment_method_id, excluded.account, excluded.created_at, excluded.updated_at,
        excluded.event_id, excluded.version
    )
    WHERE excluded.version > subscriptions.version
)
SELECT subscription_id, customer_id, status, collection_method, currency, items, mrr, period_start_at, period_end_at,
       billing_cycle_anchor_at, trial_end_at, cancel_at_period_end, cancel_at, canceled_at, ended_at, collection_paused, discounted,
       default_payment_method_id, account, created_at, version
FROM subscriptions
WHERE subscription_id = ANY ($2::text[]);

-- upsert_disputes --
-- As upsert_charges.
WITH written AS (
    INSERT INTO disputes (
        dispute_id, kind, charge_id, payment_intent_id, amount, currency, reason, status, actionable, evidence_due_at, account,
        created_at, updated_at, event_id, version
    )
    SELECT dispute_id, kind, charge_id, payment_intent_id, amount, currency, reason, status, actionable, evidence_due_at, account,
           created_at, updated_at, event_id, version
    FROM json_populate_recordset(NULL::disputes, $1::json)
    ON CONFLICT ON CONSTRAINT disputes_pkey DO UPDATE SET (
        kind, charge_id, payment_intent_id, amount, currency, reason, status, actionable, evidence_due_at, account, created_at,
        updated_at, event_id, version
    ) = ROW (
        excluded.kind, excluded.charge_id, excluded.payment_intent_id, excluded.amount, excluded.currency, excluded.reason,
        excluded.status, excluded.actionable, excluded.evidence_due_at, excluded.account, excluded.created_at, excluded.updated_at,
        excluded.event_id, excluded.version
    )
    WHERE excluded.version > disputes.version
)
SELECT dispute_id, kind, charge_id, payment_intent_id, amount, currency, reason, status, actionable, evidence_due_at, account,
       created_at, version
FROM disputes
WHERE dispute_id = ANY ($2::text[]);

-- upsert_refunds --
-- As upsert_charges.
WITH written AS (
    INSERT INTO refunds (
        refund_id, charge_id, payment_intent_id, amount, currency, status, reason, failure_reason, account, created_at, updated_at,
        event_id, version
    )
    SELECT refund_id, charge_id, payment_intent_id, amount, currency, status, reason, failure_reason, account, created_at,
           updated_at, event_id, version
    FROM json_populate_recordset(NULL::refunds, $1::json)
    ON CONFLICT ON CONSTRAINT refunds_pkey DO UPDATE SET (
        charge_id, payment_intent_id, amount, currency, status, reason, failure_reason, account, created_at, updated_at, event_id,
        version
    ) = ROW (
        excluded.charge_id, excluded.payment_intent_id, excluded.amount, excluded.currency, excluded.status, excluded.reason,
        excluded.failure_reason, excluded.account, excluded.created_at, excluded.updated_at, excluded.event_id, excluded.version
    )
    WHERE excluded.version > refunds.version
)
SELECT refund_id, charge_id, payment_intent_id, amount, currency, status, reason, failure_reason, account, created_at, version
FROM refunds
WHERE refund_id = ANY ($2::text[]);

-- upsert_customers --
-- As upsert_charges.
WITH written AS (
    INSERT INTO customers (
        customer_id, email, name, currency, delinquent, default_payment_method_id, deleted, account, created_at, updated_at,
        event_id, version
    )
    SELECT customer_id, email, name, currency, delinquent, default_payment_method_id, deleted, account, created_at, updated_at,
           event_id, version
    FROM json_populate_recordset(NULL::customers, $1::json)
    ON CONFLICT ON CONSTRAINT customers_pkey DO UPDATE SET (
        email, name, currency, delinquent, default_payment_method_id, deleted, account, created_at, updated_at, event_id, version
    ) = ROW (
        excluded.email, excluded.name, excluded.currency, excluded.delinquent, excluded.default_payment_method_id, excluded.deleted,
        excluded.account, excluded.created_at, excluded.updated_at, excluded.event_id, excluded.version
    )
    WHERE excluded.version > customers.version
)
SELECT customer_id, email, name, currency, delinquent, default_payment_method_id, deleted, account, created_at, version
FROM customers
WHERE customer_id = ANY ($2::text[]);

-- upsert_payment_methods --
-- As upsert_charges.
WITH written AS (
    INSERT INTO payment_methods (
        payment_method_id, customer_id, type, card_brand, card_last4, card_fingerprint, card_exp_month, card_exp_year, account,
        created_at, updated_at, event_id, version
    )
    SELECT payment_method_id, customer_id, type, card_brand, card_last4, card_fingerprint, card_exp_month, card_exp_year, account,
           created_at, updated_at, event_id, version
    FROM json_populate_recordset(NULL::payment_methods, $1::json)
    ON CONFLICT ON CONSTRAINT payment_methods_pkey DO UPDATE SET (
        customer_id, type, card_brand, card_last4, card_fingerprint, card_exp_month, card_exp_year, account, created_at, updated_at,
        event_id, version
    ) = ROW (
        excluded.customer_id, excluded.type, excluded.card_brand, excluded.card_last4, excluded.card_fingerprint,
        excluded.card_exp_month, excluded.card_exp_year, excluded.account, excluded.created_at, excluded.updated_at,
        excluded.event_id, excluded.version
    )
    WHERE excluded.version > payment_methods.version
)
SELECT payment_method_id, customer_id, type, card_brand, card_last4, card_fingerprint, card_exp_month, card_exp_year, account,
       created_at, version
FROM payment_methods
WHERE payment_method_id = ANY ($2::text[]);

-- insert_states --
-- Each state once, whatever the order; returns those that were not known. Of a customer's charges in a currency only the first $2 are kept:
-- one that proves to be later than those is left out, and deleted if it was kept before.
WITH given AS MATERIALIZED (
    SELECT g.object_id, g.version, g.kind, g.account, g.created_at, g.event_id, g.facts
    FROM json_populate_recordset(NULL::states, $1::json) AS g
),
ranked AS MATERIALIZED (
    SELECT c.object_id, c.version, c.known, row_number() OVER (PARTITION BY c.object_id ORDER BY c.version) AS place
    FROM (
        SELECT g.object_id, g.version, false AS known
        FROM given AS g
        WHERE g.kind = 'first_charge' AND NOT EXISTS (SELECT FROM states AS s WHERE s.object_id = g.object_id AND s.version = g.version)
        UNION ALL
        SELECT o.object_id, k.version, true
        FROM (SELECT DISTINCT g.object_id FROM given AS g WHERE g.kind = 'first_charge') AS o
        CROSS JOIN LATERAL (SELECT s.version FROM states AS s WHERE s.object_id = o.object_id OFFSET 0) AS k
    ) AS c
),
surplus AS (
    DELETE FROM states AS s
    USING ranked AS r
    WHERE r.known AND r.place > $2::int AND s.object_id = r.object_id AND s.version = r.version
)
INSERT INTO states (object_id, version, kind, account, created_at, event_id, facts)
SELECT g.object_id, g.version, g.kind, g.account, g.created_at, g.event_id, g.facts
FROM given AS g
WHERE g.kind <> 'first_charge'
   OR EXISTS (SELECT FROM ranked AS r WHERE r.object_id = g.object_id AND r.version = g.version AND NOT r.known AND r.place <= $2::int)
ON CONFLICT ON CONSTRAINT states_pkey DO NOTHING
RETURNING object_id, kind, created_at;

-- settle_refunds --
-- For these charges: which refunds returned no money, and how much of what the charge counts as refunded failed since its snapshot.
-- Both follow from the rows alone, so the order of their events does not matter. Returns the rows that changed.
WITH touched AS MATERIALIZED (
    SELECT c.charge_id, c.created_at, c.updated_at, c.captured, c.amount_refunded, c.amount_released
    FROM charges AS c
    WHERE c.charge_id = ANY ($1::text[])
),
given AS MATERIALIZED (
    SELECT r.refund_id, r.charge_id, r.amount, r.created_at, r.updated_at, r.status,
           NOT t.captured OR (
               t.amount_released > 0 AND r.amount = t.amount_released
               -- The rest is released at the capture, before anything can be refunded.
               AND row_number() OVER (PARTITION BY r.charge_id ORDER BY r.created_at, r.refund_id) = 1
           ) AS released,
           t.updated_at AS charged_at
    FROM refunds AS r
    JOIN touched AS t ON t.charge_id = r.charge_id
    WHERE r.created_at >= (SELECT min(f.created_at) FROM touched AS f)
),
marked AS (
    UPDATE refunds AS r
    SET released = g.released
    FROM given AS g
    WHERE r.refund_id = g.refund_id AND r.released <> g.released
    RETURNING r.refund_id, r.created_at
),
counted AS (
    UPDATE charges AS c
    SET refunds_failed = n.amount
    FROM (
        SELECT t.charge_id, least(t.amount_refunded, coalesce(sum(g.amount), 0))::bigint AS amount
        FROM touched AS t
        LEFT JOIN given AS g
          ON g.charge_id = t.charge_id AND g.status IN ('failed', 'canceled') AND NOT g.released
         AND g.created_at <= g.charged_at AND g.updated_at > g.charged_at
        GROUP BY t.charge_id, t.amount_refunded
    ) AS n
    WHERE c.charge_id = n.charge_id AND c.refunds_failed <> n.amount
    RETURNING c.charge_id, c.created_at
)
SELECT 'refunds' AS table_name, m.refund_id AS key, m.created_at, 'released' AS column_name FROM marked AS m
UNION ALL
SELECT 'charges', n.charge_id, n.created_at, 'refunds_failed' FROM counted AS n;

-- charges_of_payments --
-- Charges that pay an invoice, by the payments that the invoice names.
SELECT c.charge_id, c.created_at FROM charges AS c WHERE c.payment_id = ANY ($1::text[])
UNION
SELECT c.charge_id, c.created_at FROM charges AS c WHERE c.charge_id = ANY ($1::text[]);
