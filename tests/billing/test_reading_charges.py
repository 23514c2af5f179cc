from __future__ import annotations

from datetime import UTC, datetime

import pytest

from billingwatch.billing.readers import read_event
from billingwatch.billing.rows import Charge, Refund

from .payloads import NOW, Json, ancient_charge, charge, event, listed, refund


def read(inside: object, kind: str = "charge.succeeded", **envelope: object) -> Charge:
    rows = [row for row in read_event(event(kind, inside, **envelope)) if isinstance(row, Charge)]
    assert len(rows) == 1
    return rows[0]


def test_a_charge_is_read_whole() -> None:
    row = read(charge(), account="acct_2", event_id="evt_9", created=NOW + 5)

    assert (row.charge_id, row.payment_id, row.payment_intent_id, row.customer_id, row.payer) == ("ch_1", "pi_1", "pi_1", "cus_1", "cus_1")
    assert (row.amount, row.amount_captured, row.amount_refunded, row.currency, row.status) == (2000, 2000, 0, "usd", "succeeded")
    assert (row.captured, row.disputed, row.from_invoice) == (True, False, False)
    assert (row.outcome_type, row.risk_level, row.failure_code, row.decline_code) == ("authorized", "normal", None, None)
    assert (row.payment_method_type, row.card_fingerprint, row.card_country) == ("card", "fp_1", "US")
    assert (row.account, row.event_id) == ("acct_2", "evt_9")
    assert (row.created_at, row.updated_at) == (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC))


@pytest.mark.parametrize(
    ("fields", "payment_id"),
    [
        ({}, "pi_1"),
        ({"payment_intent": {"id": "pi_2", "object": "payment_intent"}}, "pi_2"),
        ({"payment_intent": None, "invoice": "in_1"}, "in_1"),
        ({"payment_intent": None, "invoice": {"id": "in_2", "object": "invoice"}}, "in_2"),
        ({"payment_intent": None}, "ch_1"),
    ],
)
def test_retries_share_a_payment_id(fields: Json, payment_id: str) -> None:
    assert read(charge(**fields)).payment_id == payment_id


@pytest.mark.parametrize(
    ("fields", "from_invoice"),
    [
        ({"invoice": "in_1"}, True),
        ({"description": "Subscription creation"}, True),
        ({"description": "Subscription update"}, True),
        ({"description": "Payment for Invoice"}, True),
        ({"description": "Order 17"}, False),
        ({"description": "Payment for invoice of our own making, no. 17"}, False),
        ({"description": None}, False),
    ],
)
def test_a_charge_tells_whether_it_paid_an_invoice(fields: Json, from_invoice: bool) -> None:
    assert read(charge(**fields)).from_invoice is from_invoice


@pytest.mark.parametrize(
    ("fields", "customer_id", "payer"),
    [
        ({"customer": "cus_1"}, "cus_1", "cus_1"),
        ({"customer": {"id": "cus_2", "object": "customer"}}, "cus_2", "cus_2"),
        ({"customer": None, "customer_account": "acct_c"}, "acct_c", "acct_c"),
        ({"customer": None}, None, "fp_1"),
        ({"customer": None, "payment_method_details": {"type": "sepa_debit", "sepa_debit": {"fingerprint": "fp_bank"}}}, None, "fp_bank"),
        ({"customer": None, "payment_method_details": {"type": "link", "link": {}}}, None, None),
        ({"customer": None, "payment_method_details": None}, None, None),
    ],
)
def test_the_payer_is_the_customer_or_else_the_fingerprint(fields: Json, customer_id: str | None, payer: str | None) -> None:
    row = read(charge(**fields))

    assert (row.customer_id, row.payer) == (customer_id, payer)


@pytest.mark.parametrize(
    ("fields", "reference"),
    [
        ({"metadata": {"order_id": "17"}}, "17"),
        ({"metadata": {"orderId": 17}}, "17"),
        ({"metadata": {"order_id": "", "cart_id": "c9"}}, "c9"),
        ({"metadata": {"colour": "red"}, "transfer_group": "ORDER_95"}, "ORDER_95"),
        ({"metadata": {"order_number": "17"}, "transfer_group": "ORDER_95"}, "17"),
        ({"transfer_group": "group_pi_3PgafuB7WZ01"}, None),
        ({"metadata": None}, None),
        ({"metadata": []}, None),
    ],
)
def test_a_charge_names_its_order(fields: Json, reference: str | None) -> None:
    assert read(charge(**fields)).order_reference == reference


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (
            {"type": "issuer_declined", "reason": "insufficient_funds", "network_decline_code": "51"},
            ("issuer_declined", "insufficient_funds"),
        ),
        ({"type": "issuer_declined", "reason": None, "network_decline_code": "51"}, ("issuer_declined", "51")),
        ({"type": "blocked", "reason": "highest_risk_level", "risk_level": "highest"}, ("blocked", None)),
        ({"type": "invalid"}, ("invalid", None)),
        (None, (None, None)),
    ],
)
def test_a_failed_charge_tells_who_declined_it_and_why(outcome: Json | None, expected: tuple[str | None, str | None]) -> None:
    row = read(charge(status="failed", failure_code="card_declined", outcome=outcome), "charge.failed")

    assert (row.outcome_type, row.decline_code) == expected
    assert (row.status, row.failure_code) == ("failed", "card_declined")


def test_an_expired_authorization_is_expired_whatever_its_status_says() -> None:
    row = read(charge(captured=False, amount_captured=0), "charge.expired")

    assert (row.status, row.captured) == ("expired", False)


def test_a_currency_is_read_in_lower_case_and_presentment_is_not_ours() -> None:
    row = read(charge(currency="JPY", amount=500, presentment_details={"presentment_amount": 310, "presentment_currency": "eur"}))

    assert (row.amount, row.currency) == (500, "jpy")


def test_a_charge_of_2013_is_read() -> None:
    row = read(ancient_charge())

    assert (row.payment_id, row.payer, row.currency, row.status) == ("ch_old", "fp_old", "eur", "succeeded")
    assert (row.amount_captured, row.payment_method_type, row.card_fingerprint, row.card_country) == (700, "card", "fp_old", "FR")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"status": "paid"}, "succeeded"),
        ({"paid": False, "failure_code": "card_declined"}, "failed"),
        ({"paid": False}, "pending"),
        ({"status": "a_status_of_2031"}, "a_status_of_2031"),
    ],
)
def test_statuses_of_all_ages_are_understood(fields: Json, status: str) -> None:
    assert read(ancient_charge(**fields)).status == status


@pytest.mark.parametrize(
    ("fields", "captured"),
    [
        ({"amount_captured": 1200}, (True, 1200)),
        ({"amount_captured": None}, (True, 2000)),
        ({"amount_captured": None, "captured": False}, (False, 0)),
        ({"amount_captured": None, "captured": None}, (True, 2000)),
        ({"amount_captured": None, "status": "failed"}, (True, 0)),
    ],
)
def test_what_was_captured_is_known_without_amount_captured(fields: Json, captured: tuple[bool, int]) -> None:
    row = read(charge(**fields))

    assert (row.captured, row.amount_captured) == captured


def test_a_source_describes_the_card_of_the_years_between() -> None:
    source = {"id": "src_1", "object": "source", "type": "card", "card": {"fingerprint": "fp_src", "country": "DE"}}

    row = read(charge(customer=None, payment_method_details=None, source=source))

    assert (row.payment_method_type, row.card_fingerprint, row.card_country, row.payer) == ("card", "fp_src", "DE", "fp_src")


def test_refunds_inside_a_legacy_charge_are_read_too() -> None:
    inside = charge(amount_refunded=500, refunds=listed(refund("re_1"), {"id": "re_2", "object": "refund", "amount": 7, "created": NOW}))

    rows = [row for row in read_event(event("charge.refunded", inside)) if isinstance(row, Refund)]

    assert [(row.refund_id, row.charge_id, row.payment_intent_id, row.amount, row.currency) for row in rows] == [
        ("re_1", "ch_1", "pi_1", 500, "usd"),
        ("re_2", "ch_1", "pi_1", 7, "usd"),
    ]


def test_refunds_from_before_they_had_ids_count_in_their_charge_alone() -> None:
    inside = ancient_charge(amount_refunded=200, refunds=[{"object": "refund", "amount": 200, "currency": "eur", "created": NOW}])

    rows = read_event(event("charge.refunded", inside))

    assert [(type(row), row.amount_refunded) for row in rows] == [(Charge, 200)]


@pytest.mark.parametrize(
    ("fields", "charges"),
    [
        ({"latest_charge": "ch_1"}, []),
        ({"latest_charge": None}, []),
        ({"latest_charge": charge("ch_1")}, ["ch_1"]),
        ({"latest_charge": charge("ch_2"), "charges": listed(charge("ch_1"), charge("ch_2"))}, ["ch_1", "ch_2"]),
    ],
)
def test_a_payment_intent_gives_the_charges_that_it_carries(fields: Json, charges: list[str]) -> None:
    rows = read_event(event("payment_intent.succeeded", {"id": "pi_1", "object": "payment_intent", **fields}))

    assert [row.key for row in rows] == charges


@pytest.mark.parametrize("kind", ["payment_intent.requires_action", "payment_intent.created", "payment_intent.processing"])
def test_a_payment_that_waits_for_its_customer_is_no_attempt(kind: str) -> None:
    waiting = {"id": "pi_1", "object": "payment_intent", "amount": 2000, "status": "requires_action", "latest_charge": None}

    assert read_event(event(kind, waiting)) == []
