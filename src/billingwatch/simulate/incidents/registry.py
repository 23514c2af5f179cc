"""All incidents by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from billingwatch.simulate.incidents.credits import NEGATIVE_LASTS, stacked_credits
from billingwatch.simulate.incidents.currencies import MISMATCH_LASTS, charge_in_another_currency
from billingwatch.simulate.incidents.duplicates import DUPLICATE_LASTS, double_order, double_submit
from billingwatch.simulate.incidents.failures import OUTAGE_LASTS, TESTING_LASTS, outage, test_cards
from billingwatch.simulate.incidents.fraud import FRAUD_LASTS, stolen_cards
from billingwatch.simulate.incidents.refunds import SPIKE_LASTS, be_disputed, refund_everybody, refund_much
from billingwatch.simulate.incidents.sales import DROP_LASTS, close_checkout, sells_enough
from billingwatch.simulate.incidents.scenes import Kind
from billingwatch.simulate.incidents.subscriptions import (
    CHURN_LASTS,
    DOUBLE_LASTS,
    EXPIRY_LASTS,
    LAPSE_LASTS,
    MISBILLED_LASTS,
    bill_early,
    bill_twice,
    bill_wrong_price,
    bill_wrong_quantity,
    fall,
    forget_to_bill,
    forget_to_finalize,
    leave_together,
    let_cards_end,
    refuse_to_pay,
)
from billingwatch.simulate.seasons import HOUR

INCIDENTS: Mapping[str, Kind] = MappingProxyType(
    {
        "card_expiry": Kind(
            detector="card_expiry",
            description="subscriptions renew with cards that end within the month, and nobody replaces them",
            inject=let_cards_end,
            lasts=EXPIRY_LASTS,
        ),
        "card_testing": Kind(
            detector="card_testing",
            description="stolen card numbers are tried out with small amounts; Radar blocks most",
            inject=test_cards,
            lasts=TESTING_LASTS,
            also=("charge_failure_spike",),
        ),
        "charge_failure_spike": Kind(
            detector="charge_failure_spike",
            description="an issuer or the processor is down: 35 to 90 % of payments fail for one to three hours",
            inject=outage,
            lasts=OUTAGE_LASTS,
            also=("revenue_drop",),
            takes=True,
        ),
        "churn_spike": Kind(
            detector="churn_spike",
            description="5 to 20 % of subscriptions, and five at least, end within 6 to 29 hours; others are cancelled for later",
            inject=leave_together,
            lasts=CHURN_LASTS,
        ),
        "currency_mismatch": Kind(
            detector="currency_mismatch",
            description="customers are charged in a currency that they have never paid in",
            inject=charge_in_another_currency,
            lasts=MISMATCH_LASTS,
        ),
        "dispute": Kind(
            detector="dispute_opened",
            description="a bank disputes a payment",
            inject=be_disputed,
            lasts=HOUR,
        ),
        "double_invoice": Kind(
            detector="double_invoice",
            description="a period is billed again, up to a day after its invoice",
            inject=bill_twice,
            lasts=DOUBLE_LASTS,
            also=("duplicate_charge",),
        ),
        "double_invoice_early": Kind(
            detector="double_invoice",
            description="a period is billed 3 to 12 days before the one that is paid for has ended",
            inject=bill_early,
            lasts=MISBILLED_LASTS,
        ),
        "duplicate_charge": Kind(
            detector="duplicate_charge",
            description="a double submit takes the same money twice, with two payment intents and no order id",
            inject=double_submit,
            lasts=DUPLICATE_LASTS,
        ),
        "duplicate_order": Kind(
            detector="duplicate_charge",
            description="two payment intents charge the same order id",
            inject=double_order,
            lasts=DUPLICATE_LASTS,
        ),
        "fraud_spike": Kind(
            detector="fraud_spike",
            description="early fraud warnings, then disputes, on a set of recent charges",
            inject=stolen_cards,
            lasts=FRAUD_LASTS,
        ),
        "invoice_mismatch": Kind(
            detector="invoice_mismatch",
            description="a renewal is billed at another price than the subscription's",
            inject=bill_wrong_price,
            lasts=MISBILLED_LASTS,
        ),
        "invoice_mismatch_quantity": Kind(
            detector="invoice_mismatch",
            description="a renewal bills another quantity than the subscription's",
            inject=bill_wrong_quantity,
            lasts=MISBILLED_LASTS,
        ),
        "large_refund": Kind(
            detector="large_refund",
            description="one refund of 12 to 80 usual payments and more, and half as much again as nearly all payments here",
            inject=refund_much,
            lasts=HOUR,
            also=("refund_spike", "revenue_drop"),
        ),
        "negative_invoice": Kind(
            detector="negative_invoice",
            description="a renewal carries the same credit several times, and its total falls below zero",
            inject=stacked_credits,
            lasts=NEGATIVE_LASTS,
            also=("invoice_mismatch",),
        ),
        "payment_recovery": Kind(
            detector="payment_recovery",
            description="a renewal runs out of attempts to collect it",
            inject=refuse_to_pay,
            lasts=HOUR,
        ),
        "plan_downgrade": Kind(
            detector="plan_downgrade",
            description="a large subscription loses 15 % of its seats and more, or falls to the cheapest plan",
            inject=fall,
            lasts=HOUR,
        ),
        "refund_spike": Kind(
            detector="refund_spike",
            description="a script gives back many recent purchases within one to six hours",
            inject=refund_everybody,
            lasts=SPIKE_LASTS,
            also=("large_refund", "revenue_drop"),
        ),
        "revenue_drop": Kind(
            detector="revenue_drop",
            description="a broken checkout loses 60 to 100 % of purchases for hours, or for days where few people buy",
            inject=close_checkout,
            lasts=DROP_LASTS,
            also=("webhook_silence",),  # where nobody buys, nothing is told
            fits=sells_enough,
            takes=True,
        ),
        "silent_lapse": Kind(
            detector="silent_lapse",
            description="renewals pass without an invoice",
            inject=forget_to_bill,
            lasts=LAPSE_LASTS,
        ),
        "silent_lapse_draft": Kind(
            detector="silent_lapse",
            description="the invoices of renewals stay drafts",
            inject=forget_to_finalize,
            lasts=LAPSE_LASTS,
        ),
    }
)
