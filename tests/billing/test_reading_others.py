from __future__ import annotations

import pytest

from billingwatch.billing.readers import read_event
from billingwatch.billing.rows import Customer, PaymentMethod, Refund

from .payloads import NOW, Json, customer, event, payment_method, refund


def read(kind: str, inside: object, **envelope: object) -> Refund | Customer | PaymentMethod:
    (row,) = read_event(event(kind, inside, **envelope))
    assert isinstance(row, Refund | Customer | PaymentMethod)
    return row


def test_a_refund_is_read_whole() -> None:
    row = read("refund.created", refund(status="pending", charge={"id": "ch_2"}, currency="EUR"))

    assert (row.refund_id, row.charge_id, row.payment_intent_id) == ("re_1", "ch_2", "pi_1")
    assert (row.amount, row.currency, row.status, row.reason, row.failure_reason) == (500, "eur", "pending", "requested_by_customer", None)


def test_a_refund_may_fail_after_it_succeeded_and_then_stays_failed() -> None:
    succeeded = read("refund.updated", refund(status="succeeded"), created=NOW)
    failed = read("refund.failed", refund(status="failed", failure_reason="lost_or_stolen_card"), created=NOW + 9)
    late = read("refund.updated", refund(status="succeeded"), created=NOW + 10)

    assert failed.version > late.version > succeeded.version
    assert failed.failure_reason == "lost_or_stolen_card"


def test_a_credit_note_and_the_refund_that_pays_it_out_are_one_refund() -> None:
    note = {
        "id": "cn_1",
        "object": "credit_note",
        "amount": 500,
        "currency": "usd",
        "invoice": "in_1",
        "refunds": [{"amount_refunded": 500, "refund": "re_1", "type": "refund"}],
    }

    rows = [*read_event(event("credit_note.created", note)), *read_event(event("refund.created", refund("re_1")))]

    assert [row.key for row in rows] == ["re_1"]


@pytest.mark.parametrize(
    ("older", "newer"), [("pending", "requires_action"), ("requires_action", "succeeded"), ("succeeded", "failed"), ("pending", "canceled")]
)
def test_within_a_second_a_refund_only_goes_forward(older: str, newer: str) -> None:
    one = read("refund.updated", refund(status=older), event_id="evt_9")
    other = read("charge.refund.updated", refund(status=newer), event_id="evt_1")

    assert other.version > one.version


def test_a_customer_is_read_whole() -> None:
    row = read("customer.updated", customer(currency="EUR", delinquent=True))

    assert (row.customer_id, row.email, row.name, row.currency) == ("cus_1", "jenny@example.com", "Jenny Rosen", "eur")
    assert (row.delinquent, row.default_payment_method_id, row.deleted) == (True, "pm_1", False)


@pytest.mark.parametrize(
    ("fields", "method"),
    [
        ({"invoice_settings": {"default_payment_method": {"id": "pm_2"}}}, "pm_2"),
        ({"invoice_settings": {"default_payment_method": None}, "default_source": "card_1"}, "card_1"),
        ({"invoice_settings": None, "default_card": "card_2"}, "card_2"),
        ({"invoice_settings": None}, None),
    ],
)
def test_the_default_payment_method_of_a_customer_is_found_in_every_shape(fields: Json, method: str | None) -> None:
    assert read("customer.updated", customer(**fields)).default_payment_method_id == method


@pytest.mark.parametrize(
    ("kind", "inside"),
    [("customer.deleted", customer()), ("customer.updated", {"id": "cus_1", "object": "customer", "deleted": True})],
)
def test_a_deleted_customer_stays_deleted(kind: str, inside: Json) -> None:
    deleted = read(kind, inside, created=NOW)
    late = read("customer.updated", customer(), created=NOW + 60)

    assert deleted.deleted
    assert deleted.version > late.version


def test_a_payment_method_is_read_whole() -> None:
    row = read("payment_method.attached", payment_method())

    assert (row.payment_method_id, row.customer_id, row.type) == ("pm_1", "cus_1", "card")
    assert (row.card_brand, row.card_last4, row.card_fingerprint, row.card_exp_month, row.card_exp_year) == (
        "visa",
        "4242",
        "fp_1",
        8,
        2030,
    )


def test_a_payment_method_that_is_no_card_has_no_card() -> None:
    row = read(
        "payment_method.attached", payment_method(type="sepa_debit", card=None, sepa_debit={"fingerprint": "fp_bank", "last4": "3000"})
    )

    assert (row.type, row.card_last4, row.card_fingerprint) == ("sepa_debit", None, None)


def test_a_detached_payment_method_belongs_to_nobody_for_good() -> None:
    detached = read("payment_method.detached", payment_method(), created=NOW)
    late = read("payment_method.automatically_updated", payment_method(), created=NOW + 60)

    assert detached.customer_id is None
    assert detached.version > late.version


def test_within_a_second_a_payment_method_is_attached_first() -> None:
    attached = read("payment_method.attached", payment_method(), event_id="evt_9")
    updated = read("payment_method.updated", payment_method(), event_id="evt_1")

    assert updated.version > attached.version


CARD = {
    "id": "card_1",
    "object": "card",
    "brand": "Visa",
    "customer": "cus_1",
    "exp_month": 8,
    "exp_year": 2030,
    "fingerprint": "fp_1",
    "last4": "4242",
}


def test_cards_and_sources_are_payment_methods() -> None:
    card = read("customer.source.expiring", CARD)
    source = read("customer.source.created", {"id": "src_1", "object": "source", "type": "card", "card": CARD, "created": NOW})

    assert (card.payment_method_id, card.customer_id, card.type, card.card_fingerprint) == ("card_1", "cus_1", "card", "fp_1")
    assert (source.payment_method_id, source.customer_id, source.type, source.card_exp_year) == ("src_1", None, "card", 2030)


@pytest.mark.parametrize("kind", ["customer.source.deleted", "customer.card.deleted"])
def test_a_deleted_card_belongs_to_nobody(kind: str) -> None:
    assert read(kind, CARD).customer_id is None


def test_the_payout_card_of_a_connected_account_is_left_alone() -> None:
    assert read_event(event("account.external_account.created", CARD)) == []
