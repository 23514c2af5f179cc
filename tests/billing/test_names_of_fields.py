"""Object × API version × field: each field that a version renamed is read under each of its names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from billingwatch.billing.readers import read_event

from .payloads import NOW, Json, event

AT = datetime.fromtimestamp(NOW, UTC)
CARD = {"object": "card", "fingerprint": "fp_1", "country": "FR", "brand": "Visa", "last4": "4242"}
PLAN = {"id": "pro", "object": "plan", "amount": 5000, "currency": "usd", "interval": "month", "interval_count": 1}
PRICE = {
    "id": "pro",
    "object": "price",
    "unit_amount": 5000,
    "currency": "usd",
    "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"},
}
# What each object needs to be read at all.
LEAST: dict[str, Json] = {
    "card": {"id": "card_1"},
    "charge": {"id": "ch_1", "amount": 2000, "currency": "usd", "status": "succeeded"},
    "customer": {"id": "cus_1"},
    "dispute": {"id": "dp_1", "status": "needs_response"},
    "invoice": {"id": "in_1"},
    "issuer_fraud_record": {"id": "issfr_1"},
    "payment_intent": {"id": "pi_1"},
    "payment_method": {"id": "pm_1"},
    "radar.early_fraud_warning": {"id": "issfr_1"},
    "refund": {"id": "re_1", "amount": 500, "currency": "usd"},
    "source": {"id": "src_1"},
    "subscription": {"id": "sub_1", "status": "active"},
}


def parent(**details: object) -> Json:
    return {"parent": {"type": "subscription_details", "subscription_details": details}}


def line(**fields: object) -> Json:
    return {"lines": {"object": "list", "data": [fields]}}


def one_item(**fields: object) -> Json:
    return {"items": {"object": "list", "data": [{"id": "si_1", **fields}]}}


# Object, column of its row (`lines.x` and `items.x`: of the first), first API version with this name, payload, value.
NAMES: list[tuple[str, str, str, Json, Any]] = [
    ("charge", "status", "2011", {"status": None, "paid": True}, "succeeded"),
    ("charge", "status", "2011", {"status": None, "paid": False, "failure_message": "declined"}, "failed"),
    ("charge", "status", "2014-12-17", {"status": "paid"}, "succeeded"),
    ("charge", "status", "2015-02-18", {"status": "succeeded"}, "succeeded"),
    ("charge", "amount_captured", "2011", {"captured": True}, 2000),
    ("charge", "amount_captured", "2020", {"captured": True, "amount_captured": 1500}, 1500),
    ("charge", "disputed", "2011", {"dispute": "dp_1"}, True),
    ("charge", "disputed", "2012", {"dispute": {"id": "dp_1"}}, True),
    ("charge", "disputed", "2019", {"disputed": True}, True),
    ("charge", "card_fingerprint", "2011", {"card": CARD}, "fp_1"),
    ("charge", "card_fingerprint", "2015-02-18", {"source": CARD}, "fp_1"),
    ("charge", "card_fingerprint", "2016", {"source": {"object": "source", "type": "card", "card": CARD}}, "fp_1"),
    ("charge", "card_fingerprint", "2018", {"payment_method_details": {"type": "card", "card": CARD}}, "fp_1"),
    ("charge", "card_country", "2011", {"card": CARD}, "FR"),
    ("charge", "card_country", "2018", {"payment_method_details": {"type": "card", "card": CARD}}, "FR"),
    ("charge", "decline_code", "2016", {"outcome": {"type": "issuer_declined", "reason": "do_not_honor"}}, "do_not_honor"),
    ("charge", "decline_code", "2024", {"outcome": {"type": "issuer_declined", "network_decline_code": "05"}}, "05"),
    ("charge", "destination", "2014", {"destination": "acct_1"}, "acct_1"),
    ("charge", "destination", "2018", {"transfer_data": {"destination": {"id": "acct_1"}}}, "acct_1"),
    ("charge", "destination", "2018", {"on_behalf_of": "acct_1"}, "acct_1"),
    ("charge", "order_reference", "2015", {"order": "or_1"}, "or_1"),
    ("charge", "order_reference", "2016", {"transfer_group": "cart_1"}, "cart_1"),
    ("charge", "from_invoice", "2011", {"invoice": "in_1"}, True),
    ("charge", "from_invoice", "2025-03-31", {"description": "Payment for invoice 7F3A11B2-0001"}, True),
    ("charge", "customer_id", "2011", {"customer": {"id": "cus_1"}}, "cus_1"),
    ("charge", "customer_id", "2026-02", {"customer": None, "customer_account": "acct_1"}, "acct_1"),
    ("invoice", "created_at", "2011", {"date": NOW}, AT),
    ("invoice", "created_at", "2019-03-14", {"created": NOW}, AT),
    ("invoice", "status", "2011", {"paid": True}, "paid"),
    ("invoice", "status", "2011", {"paid": False, "attempted": True}, "open"),
    ("invoice", "status", "2012", {"paid": False, "closed": True, "forgiven": True}, "uncollectible"),
    ("invoice", "status", "2018-11-08", {"status": "open"}, "open"),
    ("invoice", "amount_paid", "2011", {"paid": True, "amount_due": 700}, 700),
    ("invoice", "amount_paid", "2018-11-08", {"amount_paid": 700}, 700),
    ("invoice", "amount_remaining", "2011", {"paid": False, "attempted": True, "amount_due": 700}, 700),
    ("invoice", "amount_remaining", "2018-11-08", {"amount_remaining": 700}, 700),
    ("invoice", "collection_method", "2017", {"billing": "send_invoice"}, "send_invoice"),
    ("invoice", "collection_method", "2019-10-17", {"collection_method": "send_invoice"}, "send_invoice"),
    ("invoice", "subscription_id", "2011", {"subscription": "sub_1"}, "sub_1"),
    ("invoice", "subscription_id", "2025-03-31", parent(subscription="sub_1"), "sub_1"),
    ("invoice", "subscription_id", "2025-03-31", parent(subscription={"id": "sub_1"}), "sub_1"),
    ("invoice", "payment_ids", "2011", {"charge": "ch_1"}, ["ch_1"]),
    ("invoice", "payment_ids", "2019", {"payment_intent": "pi_1"}, ["pi_1"]),
    ("invoice", "payment_ids", "2025-03-31", {"payments": {"data": [{"payment": {"payment_intent": "pi_1"}}]}}, ["pi_1"]),
    ("invoice", "finalized_at", "2018", {"finalized_at": NOW}, AT),
    ("invoice", "finalized_at", "2019-03-14", {"status_transitions": {"finalized_at": NOW}}, AT),
    ("invoice", "tax_amount", "2014", {"tax": 70}, 70),
    ("invoice", "tax_amount", "2018", {"total_tax_amounts": [{"amount": 70, "inclusive": False}]}, 70),
    ("invoice", "tax_amount", "2025-03-31", {"total_taxes": [{"amount": 70, "tax_behavior": "exclusive"}]}, 70),
    ("invoice", "lines.price_id", "2011", {"lines": {"subscriptions": [{"plan": PLAN}], "invoiceitems": []}}, "pro"),
    ("invoice", "lines.proration", "2011", {"lines": {"prorations": [{"amount": -5}]}}, True),
    ("invoice", "lines.price_id", "2012-10-26", line(plan=PLAN), "pro"),
    ("invoice", "lines.price_id", "2020-08-27", line(price=PRICE), "pro"),
    ("invoice", "lines.price_id", "2025-03-31", line(pricing={"price_details": {"price": "pro"}}), "pro"),
    ("invoice", "lines.proration", "2012-10-26", line(proration=True), True),
    (
        "invoice",
        "lines.proration",
        "2025-03-31",
        line(parent={"type": "invoice_item_details", "invoice_item_details": {"proration": True}}),
        True,
    ),
    ("invoice", "lines.subscription_item_id", "2018", line(subscription_item="si_1"), "si_1"),
    (
        "invoice",
        "lines.subscription_item_id",
        "2025-03-31",
        line(parent={"type": "subscription_item_details", "subscription_item_details": {"subscription_item": "si_1"}}),
        "si_1",
    ),
    ("subscription", "created_at", "2011", {"start": NOW}, AT),
    ("subscription", "created_at", "2014", {"created": NOW}, AT),
    ("subscription", "mrr", "2011", {"plan": PLAN, "quantity": 2}, 10_000),
    ("subscription", "mrr", "2016-07-06", one_item(plan=PLAN, quantity=2), 10_000),
    ("subscription", "mrr", "2020-08-27", one_item(price=PRICE, quantity=2), 10_000),
    ("subscription", "mrr", "2018", one_item(plan={**PLAN, "transform_usage": {"divide_by": 4, "round": "up"}}, quantity=5), 10_000),
    (
        "subscription",
        "mrr",
        "2020-08-27",
        one_item(price={**PRICE, "transform_quantity": {"divide_by": 4, "round": "up"}}, quantity=5),
        10_000,
    ),
    ("subscription", "items.unit_amount", "2011", {"plan": PLAN, "quantity": 1}, 5000),
    ("subscription", "items.unit_amount", "2020-08-27", one_item(price=PRICE), 5000),
    ("subscription", "items.interval", "2011", {"plan": PLAN}, "month"),
    ("subscription", "items.interval", "2020-08-27", one_item(price=PRICE), "month"),
    ("subscription", "currency", "2011", {"plan": PLAN}, "usd"),
    ("subscription", "currency", "2022", {"currency": "usd"}, "usd"),
    ("subscription", "period_end_at", "2011", {"current_period_end": NOW}, AT),
    ("subscription", "period_end_at", "2025-03-31", one_item(current_period_end=NOW), AT),
    ("subscription", "collection_method", "2017", {"billing": "send_invoice"}, "send_invoice"),
    ("subscription", "collection_method", "2019-10-17", {"collection_method": "send_invoice"}, "send_invoice"),
    ("subscription", "discounted", "2011", {"discount": {"coupon": {"id": "off"}}}, True),
    ("subscription", "discounted", "2024", {"discounts": ["di_1"]}, True),
    ("subscription", "default_payment_method_id", "2017", {"default_source": "card_1"}, "card_1"),
    ("subscription", "default_payment_method_id", "2018", {"default_payment_method": "pm_1"}, "pm_1"),
    ("dispute", "evidence_due_at", "2011", {"evidence_due_by": NOW}, AT),
    ("dispute", "evidence_due_at", "2014-12-08", {"evidence_details": {"due_by": NOW}}, AT),
    ("dispute", "dispute_id", "2011", {"id": None, "charge": "ch_1"}, "ch_1"),
    ("dispute", "dispute_id", "2012", {}, "dp_1"),
    ("dispute", "status", "2011", {"status": "charge_refunded"}, "charge_refunded"),
    ("issuer_fraud_record", "kind", "2018", {"charge": "ch_1"}, "early_fraud_warning"),
    ("radar.early_fraud_warning", "kind", "2019", {"charge": "ch_1"}, "early_fraud_warning"),
    ("payment_intent", "charge_id", "2018", {"charges": {"data": [{"object": "charge", **LEAST["charge"]}]}}, "ch_1"),
    ("payment_intent", "charge_id", "2022-11-15", {"latest_charge": {"object": "charge", **LEAST["charge"]}}, "ch_1"),
    ("customer", "default_payment_method_id", "2011", {"active_card": {"id": "card_1", "object": "card"}}, "card_1"),
    ("customer", "default_payment_method_id", "2013-07-05", {"default_card": "card_1"}, "card_1"),
    ("customer", "default_payment_method_id", "2015-02-18", {"default_source": "card_1"}, "card_1"),
    ("customer", "default_payment_method_id", "2018", {"invoice_settings": {"default_payment_method": "pm_1"}}, "pm_1"),
    ("card", "card_brand", "2011", {"type": "Visa"}, "Visa"),
    ("card", "card_brand", "2014-12-08", {"brand": "Visa"}, "Visa"),
    ("source", "card_last4", "2016", {"type": "card", "card": CARD}, "4242"),
    ("payment_method", "card_last4", "2018", {"type": "card", "card": CARD}, "4242"),
]


def value_of(rows: list[Any], column: str) -> object:
    (row, *_) = rows
    outer, _, inner = column.partition(".")
    found = getattr(row, outer)
    return found[0][inner] if inner else found


@pytest.mark.parametrize(
    ("kind", "column", "version", "fields", "expected"),
    NAMES,
    ids=[f"{name[0]}-{name[1]}-{name[2]}-{number}" for number, name in enumerate(NAMES)],
)
def test_field_is_read_under_each_of_its_names(kind: str, column: str, version: str, fields: Json, expected: object):
    inside = {"object": kind, **LEAST[kind], **fields}

    rows = read_event(event(f"{kind}.updated", inside, api_version=version))

    assert value_of(rows, column) == expected


ENVELOPES = [("2011", {"user_id": "acct_1"}), ("2017-05-25", {"account": "acct_1"}), ("2025", {"context": "acct_1"})]


@pytest.mark.parametrize(("version", "fields"), ENVELOPES)
def test_account_is_read_under_each_of_its_names(version: str, fields: Json):
    (row,) = read_event(event("customer.updated", {"object": "customer", "id": "cus_1"}, api_version=version, **fields))

    assert row.account == "acct_1"
