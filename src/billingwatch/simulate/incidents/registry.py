"""All incidents by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from billingwatch.simulate.incidents.credits import NEGATIVE_LASTS, stacked_credits
from billingwatch.simulate.incidents.duplicates import DUPLICATE_LASTS, double_order, double_submit
from billingwatch.simulate.incidents.failures import OUTAGE_LASTS, TESTING_LASTS, outage, test_cards
from billingwatch.simulate.incidents.fraud import FRAUD_LASTS, stolen_cards
from billingwatch.simulate.incidents.scenes import Kind

INCIDENTS: Mapping[str, Kind] = MappingProxyType(
    {
        "charge_failure_spike": Kind(
            detector="charge_failure_spike",
            description="an issuer or the processor is down: 35 to 90 % of payments fail for one to three hours",
            inject=outage,
            lasts=OUTAGE_LASTS,
        ),
        "card_testing": Kind(
            detector="card_testing",
            description="stolen card numbers are tried out with small amounts; Radar blocks most",
            inject=test_cards,
            lasts=TESTING_LASTS,
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
        "negative_invoice": Kind(
            detector="negative_invoice",
            description="a renewal carries the same credit several times, and its total falls below zero",
            inject=stacked_credits,
            lasts=NEGATIVE_LASTS,
        ),
        "fraud_spike": Kind(
            detector="fraud_spike",
            description="early fraud warnings, then disputes, on a set of recent charges",
            inject=stolen_cards,
            lasts=FRAUD_LASTS,
        ),
    }
)
