-- upsert_charges --
-- The last SELECT sees the table as it was before the INSERT, so that the caller can tell what changed. No key comes twice.
WITH written AS (
    INSERT INTO charges (
        charge_id, payment_id, payment_intent_id, invoice_id, from_invoice, customer_id, payer, amount, amount_captured,
        amount_refunded, currency, status, captured, disputed, failure_code, decline_code, outcome_type, risk_level,
        payment_method_type, card_fingerprint, card_country, order_reference, account, created_at, updated_at, event_id, version
    )
    SELECT charge_id, payment_id, payment_intent_id, invoice_id, from_invoice, customer_id, payer, amount, amount_captured,
           amount_refunded, currency, status, captured, disputed, failure_code, decline_code, outcome_type, risk_level,
           payment_method_type, card_fingerprint, card_country, order_reference, account, created_at, updated_at, event_id, version
    FROM json_populate_recordset(NULL::charges, $1::json)
    ON CONFLICT ON CONSTRAINT charges_pkey DO UPDATE SET (
        payment_id, payment_intent_id, invoice_id, from_invoice, customer_id, payer, amount, amount_captured, amount_refunded,
        currency, status, captured, disputed, failure_code, decline_code, outcome_type, risk_level, payment_method_type,
        card_fingerprint, card_country, order_reference, account, created_at, updated_at, event_id, version
    ) = ROW (
        excluded.payment_id, excluded.payment_intent_id, excluded.invoice_id, excluded.from_invoice, excluded.customer_id,
        excluded.payer, excluded.amount, excluded.amount_captured, excluded.amount_refunded, excluded.currency, excluded.status,
        excluded.captured, excluded.disputed, excluded.failure_code, excluded.decline_code, excluded.outcome_type,
        excluded.risk_level, excluded.payment_method_type, excluded.card_fingerprint, excluded.card_country,
        excluded.order_reference, excluded.account, excluded.created_at, excluded.updated_at, excluded.event_id, excluded.version
    )
    WHERE excluded.version > charges.version
)
SELECT charge_id, payment_id, payment_intent_id, invoice_id, from_invoice, customer_id, payer, amount, amount_captured,
       amount_refunded, currency, status, captured, disputed, failure_code, decline_code, outcome_type, risk_level,
       payment_method_type, card_fingerprint, card_country, order_reference, account, created_at, version
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
-- Each state once, whatever the order; returns those that were not known. A charge is left out once $2 earlier ones are known: then it is
-- not one of the first whatever comes.
INSERT INTO states (object_id, version, kind, account, created_at, event_id, facts)
SELECT g.object_id, g.version, g.kind, g.account, g.created_at, g.event_id, g.facts
FROM json_populate_recordset(NULL::states, $1::json) AS g
WHERE g.kind <> 'first_charge' OR $2::int > (
    SELECT count(*) FROM (SELECT FROM states AS s WHERE s.object_id = g.object_id AND s.version < g.version LIMIT $2) AS earlier
)
ON CONFLICT ON CONSTRAINT states_pkey DO NOTHING
RETURNING object_id, kind, created_at;
