from __future__ import annotations

from typing import Any

import pytest

from billingwatch.billing.rows import Charge, Dispute
from billingwatch.detection.detectors.fraud_spike import FraudSpike

from .history import DAY, History, at, charge, dispute, warning

NAME = "fraud_spike"


@pytest.fixture(autouse=True)
def _disputes_alone_are_not_told_of(history: History) -> None:
    history.only = NAME


def sales(count: int, *, minutes: float = -3 * DAY, **fields: object) -> list[Charge]:
    return [charge(f"s_{i}", minutes + i, **{"amount": 700, **fields}) for i in range(count)]


def disputes(count: int, **fields: object) -> list[Dispute]:
    return [dispute(f"s_{i}", i * 60, **fields) for i in range(count)]


async def test_many_disputes_for_fraud_are_a_spike(history: History):
    await history.see(*sales(100), *disputes(6))

    anomaly = await history.anomaly()
    assert (anomaly.detector, anomaly.subject, anomaly.severity) == (NAME, "fraud", "critical")
    assert (anomaly.opened_at, anomaly.last_seen_at) == (at(4 * 60), at(5 * 60))
    assert anomaly.summary == "6 charges were reported as fraud within 7 days of 100 payments; 42.00 USD at risk"
    assert anomaly.amounts == {"usd": 4200}
    assert anomaly.evidence["numbers"]["by_dispute"] == 6


async def test_early_fraud_warnings_count_as_disputes_do(history: History):
    await history.see(*sales(100), *(warning(f"s_{i}", i * 60) for i in range(6)))

    assert (await history.anomaly()).evidence["numbers"]["by_early_fraud_warning"] == 6


async def test_a_warning_and_the_dispute_about_one_charge_are_one_case(history: History):
    warnings = [warning(f"s_{i}", i * 60) for i in range(4)]
    await history.see(*sales(100), *warnings)
    await history.see(*disputes(4))
    await history.see(*(dispute(f"again_{i}", DAY, charge_id=f"ch_s_{i}") for i in range(4)))

    assert await history.anomalies() == []


async def test_an_updated_warning_counts_no_second_time(history: History):
    await history.see(*sales(100), *(warning(f"s_{i}", i * 60) for i in range(4)))
    await history.see(*(warning(f"s_{i}", i * 60, actionable=False, snapshot=2, updated=DAY) for i in range(4)))

    assert await history.anomalies() == []


async def test_inquiries_and_other_reasons_are_no_fraud(history: History):
    await history.see(
        *sales(100),
        *disputes(6, kind="inquiry", status="warning_needs_response"),
        *(dispute(f"s_{i}", i * 60, reason="product_not_received") for i in range(20, 30)),
    )

    assert await history.anomalies() == []


async def test_an_inquiry_that_becomes_a_dispute_counts_from_then_on(history: History):
    await history.see(*sales(100), *disputes(6, kind="inquiry", status="warning_needs_response"))
    await history.see(*disputes(6, snapshot=2, updated=20 * DAY))

    assert (await history.anomaly()).opened_at == at(4 * 60)


async def test_an_escalated_inquiry_comes_before_the_warning_that_had_been_the_case(history: History):
    await history.see(*sales(100), *disputes(5, kind="inquiry", status="warning_needs_response"))
    await history.see(*(warning(f"s_{i}", 10 * DAY + i) for i in range(5)), *sales_later())
    had_been = await history.anomaly()

    await history.see(*disputes(5, snapshot=2, updated=12 * DAY))

    assert had_been.opened_at > at(10 * DAY)
    assert (await history.anomaly()).opened_at == at(4 * 60)


def sales_later() -> list[Charge]:
    return [charge(f"later_{i}", 8 * DAY + i) for i in range(100)]


async def test_a_case_that_was_won_or_prevented_is_still_a_case(history: History):
    await history.see(*sales(100), *disputes(3, status="won"), *(dispute(f"s_{i}", i * 60, status="prevented") for i in range(3, 6)))

    assert len(await history.anomalies()) == 1


async def test_the_rate_is_over_payments_that_succeeded_before(history: History):
    await history.see(*sales(600), *disputes(6))
    enough = await history.anomalies(NAME)

    await history.see(*(charge(f"s_{i}", -3 * DAY + i, status="failed", snapshot=2) for i in range(10, 110)))

    (anomaly,) = await history.anomalies(NAME)
    assert [each.evidence["numbers"]["peak_payments"] for each in enough] == [600]
    assert anomaly.evidence["numbers"]["peak_payments"] == 500


async def test_a_large_tenant_has_some_fraud_every_week(history: History):
    await history.see(*sales(1000), *disputes(6))

    assert await history.anomalies() == []


async def test_a_dispute_adds_nothing_to_the_payments(history: History):
    await history.see(*sales(500), *disputes(5))

    assert (await history.anomaly()).evidence["numbers"]["peak_payments"] == 500


async def test_disputes_known_before_their_charges_find_their_amounts_later(history: History):
    await history.see(*disputes(6, amount=None, currency=None))
    unknown = await history.anomaly()

    await history.see(*sales(50, currency="eur"))

    assert unknown.amounts == {}
    assert (await history.anomaly()).amounts == {"eur": 4200}


async def test_amounts_are_in_the_currency_of_the_charges_and_never_added_up(history: History):
    await history.see(
        *sales(3), *(charge(f"s_{i}", -DAY + i, amount=500, currency="jpy") for i in range(3, 6)), *disputes(6, amount=444, currency="eur")
    )

    assert (await history.anomaly()).amounts == {"usd": 2100, "jpy": 1500}


async def test_cases_more_than_a_window_apart_do_not_add_up(history: History):
    await history.see(*sales(100), *(dispute(f"s_{i}", i * 2 * DAY) for i in range(10)))

    assert await history.anomalies() == []


async def test_the_window_includes_the_case_exactly_seven_days_before(history: History):
    history.thresholds = {NAME: FraudSpike(min_cases=2)}
    await history.see(dispute("a", 0), dispute("b", 7 * DAY), dispute("c", 20 * DAY), dispute("d", 27 * DAY + 1 / 60))

    assert (await history.anomaly()).opened_at == at(7 * DAY)


async def test_disputes_without_a_charge_are_told_apart_by_their_payment(history: History):
    history.thresholds = {NAME: FraudSpike(min_cases=2)}
    nameless = {"charge_id": None}
    await history.see(
        dispute("a", 0, payment_intent_id="pi_1", **nameless),
        dispute("b", 5, payment_intent_id="pi_1", **nameless),
    )
    one = await history.anomalies()
    await history.see(dispute("c", 9, **nameless))

    assert one == []
    assert (await history.anomaly()).evidence["numbers"]["cases"] == 2


async def test_connected_accounts_have_rates_of_their_own(history: History):
    await history.see(*sales(2000), *disputes(6, account="acct_2"))

    assert (await history.anomaly()).subject == "fraud acct_2"


async def test_a_fraud_spike_ends_when_its_last_case_leaves_the_window(history: History):
    outcome = await history.see(*sales(100), *disputes(6), as_of=at(6 * 60))
    await history.settle(as_of=at(5 * 60 + 7 * DAY))

    assert outcome.settle_at == at(5 * 60 + 7 * DAY)
    assert (await history.anomaly()).status == "resolved"


def watched(*, weeks: int = 5, **fields: Any) -> list[Charge]:
    """A payment an hour for some weeks, until NOON."""
    return [charge(f"w_{i}", -i * 60, **fields) for i in range(1, weeks * 7 * 24)]


def stolen(count: int, *, minutes: float = 0, every: float = 60, name: str = "stolen") -> list[Dispute]:
    return [warning(f"{name}_{i}", minutes + i * every) for i in range(count)]


async def test_few_cases_within_a_day_stand_out_where_there_are_none(history: History):
    await history.see(*watched(amount=500))
    await history.see(*(charge(f"stolen_{i}", -DAY + i) for i in range(4)), *stolen(4))

    anomaly = await history.anomaly()
    assert anomaly.summary == "4 charges were reported as fraud within a day (usually 0.25); 40.00 USD at risk"
    assert (anomaly.severity, anomaly.opened_at, anomaly.evidence["numbers"]["cases"]) == ("warning", at(180), 4)
    assert anomaly.evidence["window"] == {"since": at(180 - DAY).isoformat(), "until": at(180).isoformat()}
    assert anomaly.evidence["numbers"]["peak_payments"] is None


async def test_many_payments_hide_no_surge(history: History):
    await history.see(*watched(), *(charge(f"more_{i}", -DAY - i) for i in range(2000)), *stolen(6))

    assert (await history.anomaly()).summary.startswith("6 charges were reported as fraud within a day (usually 0.25)")


async def test_what_exceeds_the_limit_of_networks_is_told_by_that(history: History):
    await history.see(*watched(), *stolen(6))

    assert (await history.anomaly()).summary == "6 charges were reported as fraud within 7 days of 163 payments"


async def test_a_tenant_with_a_case_a_day_has_four_now_and_then(history: History):
    history.thresholds = {NAME: FraudSpike(min_rate=1)}
    await history.see(*watched())
    await history.see(*stolen(32, minutes=-32 * DAY, every=DAY, name="usual"), *stolen(4))

    assert await history.anomalies() == []


async def test_four_cases_over_days_are_no_surge(history: History):
    await history.see(*watched(), *stolen(4, every=DAY / 3 + 1))

    assert await history.anomalies() == []


async def test_until_there_are_weeks_to_compare_with_a_surge_is_learning(history: History):
    await history.see(*watched(weeks=2), *stolen(4))
    young = await history.anomalies()
    await history.see(*(charge(f"older_{i}", (-15 - i) * DAY) for i in range(4)))

    assert young == []
    assert (await history.anomaly()).opened_at == at(180)


async def test_an_inquiry_of_the_baseline_that_becomes_a_dispute_weeks_later_counts_in_it(history: History):
    asked = [dispute(f"asked_{i}", (-5 - i / 2) * DAY, kind="inquiry", status="warning_needs_response") for i in range(24)]
    await history.see(*watched(), *(charge(f"more_{i}", -DAY - i) for i in range(2000)), *asked, *stolen(4))
    before = await history.anomalies()
    await history.see(*(dispute(f"asked_{i}", (-5 - i / 2) * DAY, snapshot=2, updated=20 * DAY) for i in range(24)))

    assert [anomaly.opened_at for anomaly in before] == [at(180)]
    assert [anomaly for anomaly in await history.anomalies() if anomaly.opened_at == at(180)] == []


async def test_surges_of_connected_accounts_are_judged_by_their_own_weeks(history: History):
    await history.see(*watched(account="acct_2"), *stolen(2), *(warning(f"elsewhere_{i}", i * 60, account="acct_2") for i in range(4)))

    assert (await history.anomaly()).subject == "fraud acct_2"
