from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from billingwatch.billing.rows import Charge
from billingwatch.detection.detectors.dispute_opened import DisputeOpened
from billingwatch.detection.store import Anomaly

from .history import DAY, NOON, History, at, charge, dispute, warning


async def seen(history: History) -> Anomaly:
    (anomaly,) = await history.anomalies("dispute_opened")
    return anomaly


def usual(amount: int, *, count: int = 20, **fields: Any) -> list[Charge]:
    """Charges that had all arrived when a dispute is made at NOON."""
    return [charge(f"usual_{amount}_{i}", -10 * DAY - i, amount=amount, **fields) for i in range(count)]


async def test_each_dispute_is_an_anomaly_with_its_deadline(history: History):
    await history.see(charge("a", -5 * DAY, customer_id="cus_1"), dispute("a", 0, evidence_due_at=NOON + timedelta(days=9)))

    anomaly = await seen(history)
    assert (anomaly.subject, anomaly.severity, anomaly.status, anomaly.amounts) == ("dp_a", "warning", "open", {"usd": 1000})
    assert anomaly.summary == "cus_1 disputed 10.00 USD (fraudulent); evidence is due by 2026-03-11 12:00 UTC"
    assert anomaly.evidence["numbers"]["evidence_due_at"] == "2026-03-11T12:00:00+00:00"
    assert anomaly.evidence["objects"] == {"dispute": "dp_a", "charge": "ch_a", "payment_intent": None, "customer": "cus_1"}


async def test_two_disputes_about_one_charge_are_two_and_told_of_twice_one_is_one(history: History):
    twice = dispute("a", 0, charge_id="ch_a")
    await history.see(twice, dispute("a", 0, charge_id="ch_a", snapshot=2), dispute("b", 1, charge_id="ch_a"))
    await history.see(twice)

    assert [anomaly.subject for anomaly in await history.anomalies()] == ["dp_a", "dp_b"]


async def test_an_early_fraud_warning_is_no_dispute(history: History):
    await history.see(charge("a", -60), warning("a", 0))

    assert await history.anomalies() == []


async def test_an_inquiry_is_information_and_the_same_anomaly_once_it_escalates(history: History):
    await history.see(dispute("a", 0, kind="inquiry", status="warning_needs_response"))
    inquired = await seen(history)

    await history.see(dispute("a", 0, snapshot=2, updated=9 * DAY, evidence_due_at=NOON + timedelta(days=16)))

    disputed = await seen(history)
    assert (inquired.severity, inquired.summary) == (
        "info",
        "A customer inquired about 10.00 USD (fraudulent); no deadline for evidence is known",
    )
    assert (disputed.anomaly_id, disputed.severity, disputed.status) == (inquired.anomaly_id, "warning", "open")


async def test_an_inquiry_that_was_closed_and_escalates_all_the_same_is_open_again(history: History):
    await history.see(dispute("a", 0, kind="inquiry", status="warning_closed", snapshot=2, updated=DAY))
    closed = await seen(history)

    await history.see(dispute("a", 0, snapshot=3, updated=2 * DAY))

    assert (closed.status, closed.resolved_at) == ("resolved", at(DAY))
    assert ((await seen(history)).status, (await seen(history)).anomaly_id) == ("open", closed.anomaly_id)


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        ("won", "dispute", "won"),
        ("lost", "dispute", "lost"),
        ("prevented", "dispute", "prevented"),
        ("charge_refunded", "dispute", "refunded"),
        ("warning_closed", "inquiry", "closed without a dispute"),
    ],
)
async def test_a_decision_ends_it_either_way_and_the_summary_says_which(history: History, status: str, kind: str, said: str):
    await history.see(dispute("a", 0, kind=kind))

    await history.see(dispute("a", 0, kind=kind, status=status, snapshot=2, updated=20 * DAY))

    anomaly = await seen(history)
    assert (anomaly.status, anomaly.resolution, anomaly.resolved_at) == ("resolved", "automatic", at(20 * DAY))
    assert anomaly.summary.endswith(f"; {said}")


async def test_evidence_that_was_sent_leaves_it_open(history: History):
    await history.see(dispute("a", 0))

    await history.see(dispute("a", 0, status="under_review", snapshot=2, updated=DAY))

    assert ((await seen(history)).status, (await seen(history)).summary) == (
        "open",
        "A customer disputed 10.00 USD (fraudulent); under review",
    )


@pytest.mark.parametrize(("days", "severity"), [(2.9, "critical"), (3.1, "warning"), (-100, "warning")])
async def test_evidence_due_within_days_of_the_opening_is_urgent(history: History, days: float, severity: str):
    await history.see(dispute("a", 0, evidence_due_at=NOON + timedelta(days=days)))

    assert (await seen(history)).severity == severity


async def test_an_amount_far_above_the_usual_charge_in_its_currency_is_critical(history: History):
    await history.see(*usual(1000), *usual(100_000, currency="jpy"))

    await history.see(
        dispute("large", 0, amount=10_000),
        dispute("small", 1, amount=9_999),
        dispute("yen", 2, amount=10_000, currency="jpy"),
        dispute("inquired", 3, amount=10_000, kind="inquiry", status="warning_needs_response"),
    )

    severities = {anomaly.subject: anomaly.severity for anomaly in await history.anomalies("dispute_opened")}
    assert severities == {"dp_large": "critical", "dp_small": "warning", "dp_yen": "warning", "dp_inquired": "warning"}


async def test_without_enough_charges_nothing_is_large(history: History):
    await history.see(*usual(1000, count=19), *usual(2000, account="acct_2"))

    await history.see(dispute("a", 0, amount=1_000_000))

    assert (await seen(history)).severity == "warning"


async def test_charges_that_may_still_be_on_their_way_do_not_say_what_is_usual(history: History):
    await history.see(dispute("a", 0, amount=10_000))
    await history.see(*(charge(f"late_{i}", -2 * DAY + i, amount=1000) for i in range(30)))

    assert (await seen(history)).severity == "warning"


async def test_a_dispute_in_another_currency_than_its_charge_is_at_risk_in_its_own(history: History):
    await history.see(charge("a", -60, amount=1000, currency="usd"), dispute("a", 0, amount=920, currency="eur"))

    anomaly = await seen(history)
    assert anomaly.amounts == {"eur": 920}
    assert (anomaly.evidence["numbers"]["charge_amount"], anomaly.evidence["numbers"]["charge_currency"]) == (1000, "usd")


async def test_a_charge_that_comes_after_its_dispute_names_the_customer_then(history: History):
    await history.see(dispute("a", 0))
    unknown = await seen(history)

    await history.see(charge("a", -2 * DAY, customer_id="cus_1"))

    assert (unknown.evidence["objects"]["customer"], (await seen(history)).evidence["objects"]["customer"]) == (None, "cus_1")
    assert (await seen(history)).anomaly_id == unknown.anomaly_id


async def test_a_dispute_on_a_connected_account_is_told_apart(history: History):
    await history.see(dispute("a", 0, account="acct_2"))

    assert (await seen(history)).subject == "dp_a acct_2"


async def test_a_dispute_without_an_amount_is_told_of_without_one(history: History):
    await history.see(dispute("a", 0, amount=None, currency=None, reason=None))

    assert ((await seen(history)).amounts, (await seen(history)).summary) == (
        {},
        "A customer disputed an unknown amount; no deadline for evidence is known",
    )


async def test_thresholds_say_what_is_large_urgent_and_worth_it(history: History):
    history.thresholds = {"dispute_opened": DisputeOpened(large_factor=2, due_days=0, min_amount=500)}
    await history.see(*usual(1000))

    await history.see(dispute("a", 0, amount=2000), dispute("b", 1, evidence_due_at=NOON + timedelta(days=1)), dispute("c", 2, amount=499))

    severities = {anomaly.subject: anomaly.severity for anomaly in await history.anomalies("dispute_opened")}
    assert severities == {"dp_a": "critical", "dp_b": "warning"}
