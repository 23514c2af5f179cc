from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from billingwatch.billing.rows import Invoice
from billingwatch.detection.detectors.payment_recovery import PaymentRecovery
from billingwatch.detection.store import Anomaly

from .history import DAY, NOON, History, at, charge, invoice, unpaid

INVOICED = -20 * DAY  # when the invoices here were made


async def seen(history: History) -> Anomaly:
    (anomaly,) = await history.anomalies()
    return anomaly


def at_noon(key: str, *, snapshot: int = 4, **fields: Any) -> Invoice:
    """An invoice of weeks ago that is left unpaid at NOON."""
    return unpaid(key, INVOICED, **{"snapshot": snapshot, "updated": 0, **fields})


def retried(key: str, *, snapshot: int = 3, **fields: Any) -> Invoice:
    """The same with another attempt ahead."""
    return at_noon(key, snapshot=snapshot, next_payment_attempt_at=at(5 * DAY), **fields)


async def test_an_invoice_that_ran_out_of_retries_is_an_anomaly_dated_by_the_last_failure(history: History):
    await history.see(retried("a", updated=-5 * DAY, attempt_count=3), at_noon("a", number="INV-7", customer_id="cus_1"))

    anomaly = await seen(history)
    assert (anomaly.detector, anomaly.subject, anomaly.severity, anomaly.status) == ("payment_recovery", "in_a", "warning", "open")
    assert (anomaly.opened_at, anomaly.last_seen_at, anomaly.amounts) == (NOON, NOON, {"usd": 1000})
    assert anomaly.summary == "Invoice INV-7 of cus_1 over 10.00 USD ran out of retries after 4 attempts"
    assert anomaly.evidence["window"]["since"] == at(INVOICED).isoformat()


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"next_payment_attempt_at": at(DAY)}, id="another attempt is ahead"),
        pytest.param({"attempt_count": 0}, id="nothing was tried yet"),
        pytest.param({"status": "draft"}, id="a draft"),
        pytest.param({"status": "paid"}, id="paid"),
        pytest.param({"status": "void"}, id="void"),
        pytest.param({"collection_method": "send_invoice"}, id="the customer pays by himself"),
        pytest.param({"billing_reason": "subscription_create"}, id="the first payment of a subscription"),
        pytest.param({"billing_reason": "subscription_create", "status": "uncollectible"}, id="the first payment, written off"),
        pytest.param({"amount_remaining": 0}, id="nothing is owed"),
        pytest.param({"amount_remaining": None}, id="what is owed is not known"),
    ],
)
async def test_what_has_not_run_out(history: History, fields: dict[str, Any]):
    await history.see(at_noon("a", **fields))

    assert await history.anomalies() == []


@pytest.mark.parametrize("collection", ["charge_automatically", "send_invoice"])
async def test_an_invoice_that_was_written_off_is_one_whoever_was_to_pay(history: History, collection: str):
    await history.see(at_noon("a", status="uncollectible", collection_method=collection))

    assert (await seen(history)).summary == "Invoice in_a of cus_a over 10.00 USD was written off after 4 attempts"


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_snapshots_of_the_last_failure_are_one_anomaly_in_any_order(history: History, order: tuple[int, ...]):
    snapshots = [
        at_noon("a", snapshot=3, updated=-5 * DAY, next_payment_attempt_at=NOON),
        at_noon("a", snapshot=4),
        at_noon("a", snapshot=5, updated=0.05),
    ]

    for number in order:
        await history.see(snapshots[number])

    assert ((await seen(history)).opened_at, (await seen(history)).subject) == (NOON, "in_a")


@pytest.mark.parametrize("seconds", [0, 30])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_a_next_attempt_named_by_the_newest_snapshot_of_a_failure_means_it_has_not_run_out(
    history: History, order: tuple[int, ...], seconds: float
):
    snapshots = at_noon("a", snapshot=3), retried("a", snapshot=4, updated=seconds / 60)

    for number in order:
        await history.see(snapshots[number])

    assert await history.anomalies() == []


async def test_an_attempt_that_lay_ahead_before_it_failed_does_not_lie_ahead_any_more(history: History):
    await history.see(at_noon("a", next_payment_attempt_at=NOON))

    assert (await seen(history)).opened_at == NOON


@pytest.mark.parametrize(
    ("fields", "ended_at", "said"),
    [
        ({"status": "paid", "paid_at": at(2 * DAY)}, at(2 * DAY), "paid since"),
        ({"status": "paid"}, at(3 * DAY), "paid since"),
        ({"status": "void", "voided_at": at(DAY)}, at(DAY), "voided since"),
        ({"status": "deleted"}, at(3 * DAY), "deleted since"),
    ],
)
async def test_it_ends_when_the_invoice_is_paid_voided_or_deleted(history: History, fields: dict[str, Any], ended_at: object, said: str):
    await history.see(at_noon("a"))

    outcome = await history.see(invoice("a", INVOICED, snapshot=9, updated=3 * DAY, **fields))

    anomaly = await seen(history)
    assert [finding.anomaly_id for finding in outcome.resolved] == [anomaly.anomaly_id]
    assert (anomaly.status, anomaly.resolution, anomaly.resolved_at) == ("resolved", "automatic", ended_at)
    assert anomaly.summary.endswith(said)


async def test_an_invoice_paid_long_after_it_was_made_still_ends_it(history: History):
    await history.see(unpaid("a", -400 * DAY, updated=0, status="uncollectible"))

    await history.see(invoice("a", -400 * DAY, snapshot=9, updated=30 * DAY, paid_at=at(30 * DAY)))

    assert (await seen(history)).resolved_at == at(30 * DAY)


async def test_a_collection_that_is_taken_up_again_and_fails_is_the_same_anomaly(history: History):
    await history.see(at_noon("a"), retried("a", snapshot=5, updated=20 * DAY), at_noon("a", snapshot=6, updated=40 * DAY))
    await history.see(at_noon("a", snapshot=7, updated=60 * DAY, status="uncollectible"))

    assert ((await seen(history)).opened_at, (await seen(history)).status) == (NOON, "open")


async def test_a_late_snapshot_that_had_run_out_before_moves_the_anomaly_there(history: History):
    await history.see(at_noon("a"))
    found = await seen(history)

    await history.see(at_noon("a", snapshot=3, updated=-DAY))

    assert ((await seen(history)).opened_at, (await seen(history)).anomaly_id) == (at(-DAY), found.anomaly_id)


async def test_a_bank_debit_under_way_has_not_failed(history: History):
    debit = {"payment_id": "pi_a", "payment_method_type": "sepa_debit"}
    await history.see(charge("a", 0, status="pending", **debit), at_noon("a", attempt_count=1, payment_ids=["pi_a"]))
    meanwhile = await history.anomalies()

    failed = at_noon("a", snapshot=5, updated=6 * DAY, attempt_count=1, payment_ids=["pi_a"])
    await history.see(charge("a", 0, status="failed", snapshot=2, updated=6 * DAY, **debit), failed)

    assert (meanwhile, (await seen(history)).opened_at) == ([], at(6 * DAY))


async def test_a_bank_debit_that_is_told_of_late_was_under_way_all_the_same(history: History):
    await history.see(at_noon("a", updated=0.5, attempt_count=1, payment_ids=["pi_a"]))
    without = await seen(history)

    await history.see(charge("a", 0, status="pending", payment_id="pi_a", payment_method_type="sepa_debit"))

    assert (without.status, await history.anomalies()) == ("open", [])


async def test_a_card_charge_that_is_told_of_again_later_had_failed(history: History):
    await history.see(at_noon("a", payment_ids=["pi_a"]), charge("a", 0, status="failed", payment_id="pi_a", snapshot=2, updated=DAY))

    assert (await seen(history)).opened_at == NOON


async def test_a_bank_debit_that_succeeds_was_no_anomaly(history: History):
    debit = {"payment_id": "pi_a", "payment_method_type": "sepa_debit"}
    await history.see(charge("a", 0, status="pending", **debit), at_noon("a", attempt_count=1, payment_ids=["pi_a"]))

    await history.see(charge("a", 0, snapshot=2, updated=6 * DAY, **debit))
    await history.see(invoice("a", INVOICED, snapshot=9, updated=6 * DAY, paid_at=at(6 * DAY), payment_ids=["pi_a"]))

    assert await history.anomalies() == []


async def test_an_amount_far_above_the_usual_invoice_in_its_currency_is_critical(history: History):
    await history.see(*(invoice(f"u_{i}", -10 * DAY - i, total=1000) for i in range(20)))
    await history.see(*(invoice(f"y_{i}", -10 * DAY - i, total=100_000, currency="jpy") for i in range(20)))

    await history.see(at_noon("large", total=5000), at_noon("small", total=4999), at_noon("yen", total=5000, currency="jpy"))

    severities = {anomaly.subject: anomaly.severity for anomaly in await history.anomalies()}
    assert severities == {"in_large": "critical", "in_small": "warning", "in_yen": "warning"}


async def test_without_enough_invoices_nothing_is_large(history: History):
    await history.see(*(invoice(f"u_{i}", -10 * DAY - i, total=1000, account="acct_2") for i in range(30)))

    await history.see(at_noon("a", total=1_000_000))

    assert (await seen(history)).severity == "warning"


async def test_each_invoice_and_account_is_judged_apart_in_its_currency(history: History):
    await history.see(at_noon("a"), at_noon("b", currency="jpy", total=500, account="acct_2"))

    assert {anomaly.subject: anomaly.amounts for anomaly in await history.anomalies()} == {
        "in_a": {"usd": 1000},
        "in_b acct_2": {"jpy": 500},
    }


async def test_thresholds_say_what_is_worth_it(history: History):
    history.thresholds = {"payment_recovery": PaymentRecovery(min_amount=1000)}

    await history.see(at_noon("a", total=999), at_noon("b", total=1000))

    assert (await seen(history)).subject == "in_b"
