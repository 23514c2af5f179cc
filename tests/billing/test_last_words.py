"""Which snapshot is the newest: whatever arrives when, the greatest version stays (test_any_order shows that it does)."""

from __future__ import annotations

import pytest

from billingwatch.billing.readers import read_event
from billingwatch.billing.rows import Row

from .payloads import NOW, Json, charge, dispute, event, invoice, refund, subscription


def newest(history: list[Json]) -> Row:
    return max((row for one in history for row in read_event(one)), key=lambda row: row.version)


LAST_WORDS = {
    "an invoice that is paid stays paid": (
        "paid",
        [
            event("invoice.created", invoice(status="draft"), event_id="evt_3"),
            event("invoice.paid", invoice(status="paid", amount_paid=2000), event_id="evt_1"),
            event("invoice.updated", invoice(status="open"), event_id="evt_2"),
        ],
    ),
    "an invoice that is void stays void": (
        "void",
        [
            event("invoice.voided", invoice(status="void"), event_id="evt_1"),
            event("invoice.finalized", invoice(status="open"), event_id="evt_2", created=NOW + 9),
        ],
    ),
    "a subscription leaves incomplete": (
        "active",
        [
            event("customer.subscription.created", subscription(status="incomplete"), event_id="evt_2"),
            event("customer.subscription.updated", subscription(status="active"), event_id="evt_1"),
        ],
    ),
    "a subscription begins a trial after its creation": (
        "trialing",
        [
            event("customer.subscription.created", subscription(status="active"), event_id="evt_2"),
            event("customer.subscription.updated", subscription(status="trialing"), event_id="evt_1"),
        ],
    ),
    "a canceled subscription is not revived": (
        "canceled",
        [
            event("customer.subscription.deleted", subscription(status="canceled"), event_id="evt_1"),
            event("customer.subscription.updated", subscription(status="active"), event_id="evt_2", created=NOW + 9),
        ],
    ),
    "a lost dispute is not reopened": (
        "lost",
        [
            event("charge.dispute.closed", dispute(status="lost"), event_id="evt_1"),
            event("charge.dispute.updated", dispute(status="under_review"), event_id="evt_2", created=NOW + 9),
        ],
    ),
    "an expired authorization is not revived by its refund": (
        "expired",
        [
            event("charge.expired", charge(captured=False), event_id="evt_1"),
            event("charge.refunded", charge(captured=False, amount_refunded=2000), event_id="evt_2", created=NOW + 1),
        ],
    ),
    "a refund that failed has failed": (
        "failed",
        [
            event("refund.created", refund(status="pending"), event_id="evt_3"),
            event("charge.refund.updated", refund(status="succeeded"), event_id="evt_2"),
            event("refund.failed", refund(status="failed"), event_id="evt_1"),
        ],
    ),
}


@pytest.mark.parametrize(("status", "history"), LAST_WORDS.values(), ids=LAST_WORDS.keys())
def test_the_last_word_is_the_greatest_version(status: str, history: list[Json]) -> None:
    assert newest(history).status == status


def test_within_a_second_the_most_refunded_snapshot_of_a_charge_wins() -> None:
    refunded = event("charge.refunded", charge(amount_refunded=900), event_id="evt_1")
    captured = event("charge.captured", charge(), event_id="evt_3")
    authorized = event("charge.succeeded", charge(captured=False), event_id="evt_9")

    assert newest([refunded, captured, authorized]).amount_refunded == 900


def test_within_a_second_a_disputed_charge_is_disputed() -> None:
    disputed = event("charge.updated", charge(disputed=True), event_id="evt_1")
    refunded = event("charge.refunded", charge(amount_refunded=900), event_id="evt_3")

    assert newest([disputed, refunded]).disputed


def test_within_a_second_the_invoice_of_more_attempts_is_the_newer() -> None:
    first = event("invoice.payment_failed", invoice(attempt_count=1), event_id="evt_9")
    second = event("invoice.payment_failed", invoice(attempt_count=2), event_id="evt_1")

    assert newest([first, second]).attempt_count == 2


def test_within_a_second_a_subscription_that_was_just_canceled_is_the_newer() -> None:
    renewed = event("customer.subscription.updated", subscription(), event_id="evt_9")
    canceled = event("customer.subscription.updated", subscription(cancel_at_period_end=True, canceled_at=NOW + 5), event_id="evt_1")

    assert newest([renewed, canceled]).cancel_at_period_end
