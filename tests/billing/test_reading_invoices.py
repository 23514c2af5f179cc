from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from billingwatch.billing.readers import read_event
from billingwatch.billing.rows import Charge, Invoice

from .payloads import DAY, NOW, Json, charge, event, invoice, invoice_payment, legacy_invoice, listed


def read(inside: object, kind: str = "invoice.updated", **envelope: object) -> Invoice:
    (row,) = read_event(event(kind, inside, **envelope))
    assert isinstance(row, Invoice)
    return row


@pytest.mark.parametrize("shape", [invoice, legacy_invoice])
def test_an_invoice_is_read_whole_in_either_shape(shape: Callable[..., Json]) -> None:
    transitions = {"finalized_at": NOW + 1, "paid_at": NOW + 2, "voided_at": None}
    inside = shape(status="paid", amount_paid=2000, amount_remaining=0, attempt_count=1, due_date=NOW + DAY, status_transitions=transitions)

    row = read(inside, "invoice.paid")

    assert (row.invoice_id, row.customer_id, row.subscription_id, row.number, row.status) == ("in_1", "cus_1", "sub_1", "ABC-0001", "paid")
    assert (row.total, row.subtotal, row.amount_due, row.amount_paid, row.amount_remaining, row.currency) == (
        2000,
        2000,
        2000,
        2000,
        0,
        "usd",
    )
    assert (row.billing_reason, row.collection_method, row.attempt_count) == ("subscription_cycle", "charge_automatically", 1)
    assert (row.due_at, row.voided_at, row.next_payment_attempt_at) == (datetime(2026, 1, 2, tzinfo=UTC), None, None)
    assert (row.finalized_at, row.paid_at) == (datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC))


@pytest.mark.parametrize(
    ("fields", "subscription_id"),
    [
        ({"subscription": "sub_1", "parent": None}, "sub_1"),
        ({"subscription": {"id": "sub_1", "object": "subscription"}, "parent": None}, "sub_1"),
        ({"parent": {"type": "subscription_details", "subscription_details": {"subscription": "sub_1", "metadata": {}}}}, "sub_1"),
        ({"parent": {"type": "subscription_details", "subscription_details": {"subscription": {"id": "sub_1"}}}}, "sub_1"),
        ({"subscription": "sub_1", "parent": {"type": "subscription_details", "subscription_details": {"subscription": "sub_1"}}}, "sub_1"),
        ({"parent": None, "billing_reason": "manual"}, None),
        (
            {
                "parent": {"type": "quote_details", "quote_details": {"quote": "qt_1"}, "subscription_details": None},
                "billing_reason": "manual",
            },
            None,
        ),
        ({"subscription": None, "parent": None, "lines": listed({"subscription": "sub_1"})}, "sub_1"),
        (
            {"parent": None, "lines": listed({"parent": {"subscription_item_details": {"subscription": "sub_1"}}})},
            "sub_1",
        ),
        ({"parent": None, "billing_reason": "manual", "lines": listed({"subscription": "sub_1"})}, None),
    ],
)
def test_an_invoice_names_its_subscription_in_every_shape(fields: Json, subscription_id: str | None) -> None:
    assert read(invoice(**fields)).subscription_id == subscription_id


def pays(**payment: object) -> dict[str, object]:
    return {"object": "invoice_payment", "status": "paid", "payment": payment}


@pytest.mark.parametrize(
    ("fields", "payment_ids"),
    [
        ({"charge": "ch_1"}, ["ch_1"]),
        ({"charge": "ch_1", "payment_intent": "pi_1"}, ["ch_1", "pi_1"]),
        ({"charge": {"id": "ch_1"}, "payment_intent": {"id": "pi_1"}}, ["ch_1", "pi_1"]),
        ({"charge": None, "payment_intent": None}, []),
        ({"payments": listed(pays(type="payment_intent", payment_intent="pi_1"))}, ["pi_1"]),
        ({"payments": listed(pays(type="payment_record", payment_record="prec_1"))}, ["prec_1"]),
        ({"payments": listed(pays(type="charge", charge="ch_2"), pays(type="payment_intent", payment_intent="pi_1"))}, ["ch_2", "pi_1"]),
        ({"payment_intent": "pi_1", "payments": listed(pays(type="payment_intent", payment_intent={"id": "pi_1"}))}, ["pi_1"]),
        ({"payments": listed({**pays(type="payment_intent", payment_intent="pi_1"), "status": "canceled"})}, []),
        ({}, []),
    ],
)
def test_an_invoice_names_its_payments_in_every_shape(fields: Json, payment_ids: list[str]) -> None:
    assert read(invoice(**fields)).payment_ids == payment_ids


def test_a_hybrid_invoice_gives_its_expanded_charge_as_well() -> None:
    inside = legacy_invoice(charge=charge("ch_1", payment_intent="pi_1", invoice="in_1"), payment_intent="pi_1", parent=invoice()["parent"])

    rows = read_event(event("invoice.payment_succeeded", inside))

    assert [type(row) for row in rows] == [Invoice, Charge]
    assert [row.key for row in rows] == ["in_1", "ch_1"]


@pytest.mark.parametrize(
    ("payment", "payment_ids"),
    [
        ({"type": "payment_intent", "payment_intent": "pi_1"}, ["pi_1"]),
        ({"type": "charge", "charge": {"id": "ch_1", "object": "charge"}}, ["ch_1"]),
        ({"type": "payment_record", "payment_record": "prec_1"}, ["prec_1"]),
    ],
)
def test_a_payment_is_linked_to_an_invoice_not_seen_yet(payment: Json, payment_ids: list[str]) -> None:
    row = read(invoice_payment("in_9", payment), "invoice_payment.paid")

    assert (row.invoice_id, row.status, row.payment_ids, row.currency, row.total, row.lines) == (
        "in_9",
        "unknown",
        payment_ids,
        "usd",
        None,
        None,
    )


def test_any_snapshot_of_an_invoice_is_newer_than_a_payment_of_it() -> None:
    heard_of = read(invoice_payment(), "invoice_payment.paid", created=NOW + 1000, event_id="evt_9")
    draft = read(invoice(status="draft"), "invoice.created", created=NOW)

    assert draft.version > heard_of.version


@pytest.mark.parametrize(
    "inside", [invoice_payment(status="canceled"), invoice_payment(payment={"type": "payment_record", "payment_record": None})]
)
def test_a_payment_that_names_nobody_links_nothing(inside: Json) -> None:
    assert read_event(event("invoice_payment.paid", inside)) == []


def test_a_preview_is_no_invoice() -> None:
    preview = {key: value for key, value in invoice(billing_reason="upcoming").items() if key != "id"}

    assert read_event(event("invoice.upcoming", preview)) == []
    assert read_event(event("invoice.upcoming", {**preview, "id": "upcoming_in_1"})) == []


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"paid": True, "closed": True}, "paid"),
        ({"paid": False, "forgiven": True, "closed": True}, "uncollectible"),
        ({"paid": False, "attempted": True}, "open"),
        ({"paid": False, "closed": True}, "open"),
        ({"paid": False, "attempted": False, "closed": False}, "draft"),
    ],
)
def test_an_invoice_from_before_2018_says_its_status_in_booleans(fields: Json, status: str) -> None:
    inside = {key: value for key, value in legacy_invoice(date=NOW - DAY, **fields).items() if key not in {"status", "created"}}

    row = read(inside)

    assert (row.status, row.created_at) == (status, datetime(2025, 12, 31, tzinfo=UTC))


@pytest.mark.parametrize(
    ("kind", "inside"),
    [
        ("invoice.deleted", invoice(status="draft")),
        ("invoice.updated", {"id": "in_1", "object": "invoice", "deleted": True}),
    ],
)
def test_a_deleted_invoice_is_deleted(kind: str, inside: Json) -> None:
    row = read(inside, kind, created=NOW)

    assert (row.status, row.created_at) == ("deleted", datetime(2026, 1, 1, tzinfo=UTC))


def test_a_negative_invoice_keeps_its_signs() -> None:
    row = read(
        invoice(total=-5000, subtotal=-5000, amount_due=0, ending_balance=-5000, status="paid", billing_reason="subscription_update")
    )

    assert (row.total, row.subtotal, row.amount_due, row.amount_paid, row.starting_balance, row.ending_balance) == (
        -5000,
        -5000,
        0,
        0,
        0,
        -5000,
    )


LEGACY_LINE = {
    "id": "il_1",
    "object": "line_item",
    "amount": -700,
    "period": {"start": NOW, "end": NOW + DAY},
    "plan": {"id": "plan_1", "object": "plan"},
    "price": {"id": "price_1", "object": "price"},
    "proration": True,
    "quantity": 2,
    "subscription": "sub_1",
    "subscription_item": "si_1",
    "type": "subscription",
}
MODERN_LINE = {
    "id": "il_1",
    "object": "line_item",
    "amount": -700,
    "period": {"start": NOW, "end": NOW + DAY},
    "parent": {
        "type": "subscription_item_details",
        "invoice_item_details": None,
        "subscription_item_details": {"proration": True, "subscription": "sub_1", "subscription_item": "si_1"},
    },
    "pricing": {"type": "price_details", "price_details": {"price": "price_1", "product": "prod_1"}, "unit_amount_decimal": "350"},
    "quantity": 2,
    "subscription": "sub_1",
}
LINE = {
    "price_id": "price_1",
    "amount": -700,
    "quantity": 2,
    "proration": True,
    "subscription_item_id": "si_1",
    "period_start": NOW,
    "period_end": NOW + DAY,
    "discounted": False,
    "listed_all": False,
}


@pytest.mark.parametrize(
    ("line", "read_as"),
    [
        (LEGACY_LINE, LINE),
        (MODERN_LINE, LINE),
        ({**LEGACY_LINE, "price": None}, {**LINE, "price_id": "plan_1"}),
        (
            {
                **MODERN_LINE,
                "parent": {"type": "invoice_item_details", "invoice_item_details": {"proration": False, "invoice_item": "ii_1"}},
            },
            {**LINE, "proration": False, "subscription_item_id": None},
        ),
        ({**MODERN_LINE, "discounts": ["di_1"]}, {**LINE, "discounted": True}),
        ({"amount": 5}, {**dict.fromkeys(LINE), "amount": 5, "proration": False, "discounted": False, "listed_all": False}),
    ],
)
def test_a_line_is_read_in_every_shape(line: Json, read_as: Json) -> None:
    assert read(invoice(lines=listed(line, has_more=True))).lines == [read_as]


@pytest.mark.parametrize(
    ("fields", "customer_id"),
    [
        ({"customer": {"id": "cus_2", "deleted": True}}, "cus_2"),
        ({"customer": None, "customer_account": "acct_c"}, "acct_c"),
        ({"customer": None}, None),
    ],
)
def test_an_invoice_names_its_customer_in_every_shape(fields: Json, customer_id: str | None) -> None:
    assert read(invoice(**fields)).customer_id == customer_id


@pytest.mark.parametrize("lines", [listed(LEGACY_LINE), [LEGACY_LINE]])
def test_lines_say_whether_the_list_is_whole(lines: Json) -> None:
    assert read(invoice(lines=lines)).lines == [{**LINE, "listed_all": True}]


@pytest.mark.parametrize(
    ("fields", "amount"),
    [
        ({"total_discount_amounts": [{"amount": 100, "discount": "di_1"}, {"amount": 50, "discount": "di_2"}]}, 150),
        ({"total_discount_amounts": []}, 0),
        ({"total_discount_amounts": None}, None),
        ({}, None),
        ({"total_discount_amounts": [{"discount": "di_1"}]}, None),
        (
            {
                "total_discount_amounts": [{"amount": 100, "discount": "di_1"}],
                "total_pretax_credit_amounts": [
                    {"amount": 100, "discount": "di_1", "type": "discount"},
                    {"amount": 30, "credit_balance_transaction": "cbtxn_1", "type": "credit_balance_transaction"},
                ],
            },
            130,
        ),
    ],
)
def test_discounts_and_credit_grants_are_what_is_taken_off(fields: Json, amount: int | None) -> None:
    assert read(invoice(**fields)).discount_amount == amount


@pytest.mark.parametrize(
    ("fields", "amount"),
    [
        ({"total_taxes": [{"amount": 190, "tax_behavior": "exclusive"}, {"amount": 10, "tax_behavior": "inclusive"}]}, 190),
        ({"total_taxes": []}, 0),
        ({"total_taxes": None}, None),
        ({"tax": 200, "total_tax_amounts": [{"amount": 190, "inclusive": False}, {"amount": 10, "inclusive": True}]}, 190),
        ({"tax": None, "total_tax_amounts": []}, 0),
        ({"tax": 190}, 190),
        ({"tax": None}, None),
        ({"total_taxes": [{"amount": 190, "tax_behavior": "exclusive"}], "amount_shipping": 500}, None),
        ({"total_taxes": [], "shipping_cost": {"amount_subtotal": 500, "amount_tax": 0, "amount_total": 500}}, None),
        ({"total_taxes": [], "amount_shipping": 0, "shipping_cost": None}, 0),
    ],
)
def test_tax_is_what_comes_on_top_in_every_shape(fields: Json, amount: int | None) -> None:
    assert read(invoice(**fields)).tax_amount == amount
