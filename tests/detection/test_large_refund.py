from __future__ import annotations

import pytest

from billingwatch.billing.rows import Charge
from billingwatch.detection.detectors.large_refund import LargeRefund

from .history import DAY, NOON, History, charge, refund

NAME = "large_refund"


def usual(*, name: str = "usual", amount: int = 5000, days: int = 30, **fields: object) -> list[Charge]:
    """Two charges a day, until four days ago."""
    return [charge(f"{name}_{day}_{i}", -day * DAY + i, amount=amount, **fields) for day in range(4, 4 + days) for i in range(2)]


async def test_a_refund_far_above_what_is_charged_is_an_anomaly(history: History):
    await history.see(*usual())

    await history.see(refund("a", 0, of=charge("big", -100), amount=60_000, reason="requested_by_customer"))

    anomaly = await history.anomaly()
    assert (anomaly.detector, anomaly.subject, anomaly.severity, anomaly.status) == (NAME, "re_a", "warning", "open")
    assert anomaly.summary == "600.00 USD was refunded of ch_big, 12 times the median charge"
    assert (anomaly.opened_at, anomaly.amounts) == (NOON, {"usd": 60_000})
    numbers = anomaly.evidence["numbers"]
    assert (numbers["median_charge"], numbers["large_charge"], numbers["compared_charges"]) == (5000, 5000, 60)
    assert numbers["comparable_refunds"] == 0


async def test_forty_times_the_median_charge_is_critical(history: History):
    await history.see(*usual(), refund("a", 0, of=charge("big"), amount=200_000))

    assert (await history.anomaly()).severity == "critical"


async def test_a_refund_of_what_is_charged_now_and_then_is_usual(history: History):
    await history.see(*usual(), *usual(name="yearly", amount=80_000, days=1))

    await history.see(refund("a", 0, of=charge("big"), amount=80_000), refund("b", 0, of=charge("bigger"), amount=80_001))

    assert [anomaly.subject for anomaly in await history.anomalies()] == ["re_b"]


async def test_the_floor_counts_in_whole_units_whatever_the_decimals(history: History):
    await history.see(*usual(amount=100), *usual(name="yen", amount=100, currency="jpy"), *usual(name="dinar", amount=100, currency="kwd"))

    await history.see(
        refund("cents", 0, of=charge("a"), amount=9_999),
        refund("yen", 0, of=charge("b"), amount=800, currency="jpy"),
        refund("few_yen", 0, of=charge("b2"), amount=799, currency="jpy"),
        refund("fils", 0, of=charge("c"), amount=99_999, currency="kwd"),
        refund("dinars", 0, of=charge("d"), amount=100_000, currency="kwd"),
    )

    assert {anomaly.subject: anomaly.amounts for anomaly in await history.anomalies()} == {
        "re_yen": {"jpy": 800},
        "re_dinars": {"kwd": 100_000},
    }


async def test_a_usual_refund_in_yen_is_not_measured_in_cents(history: History):
    await history.see(*usual(), *usual(name="yen", amount=60_000, currency="jpy"))

    await history.see(refund("a", 0, of=charge("big"), amount=60_000, currency="jpy"))

    assert await history.anomalies() == []


async def test_of_a_currency_with_few_charges_it_is_not_known_what_is_large(history: History):
    await history.see(*usual(), *usual(name="chf", currency="chf", days=4))

    await history.see(refund("a", 0, of=charge("big"), amount=900_000, currency="chf"))

    assert await history.anomalies() == []


async def test_a_tenant_that_refunds_as_much_again_and_again_does_so_usually(history: History):
    await history.see(*usual())
    await history.see(*(refund(f"before_{i}", (-10 - i) * DAY, of=charge(f"before_{i}"), amount=50_000) for i in range(3)))

    await history.see(refund("usual", 0, of=charge("usual"), amount=75_000), refund("larger", 1, of=charge("larger"), amount=75_001))

    assert [anomaly.subject for anomaly in await history.anomalies() if anomaly.opened_at >= NOON] == ["re_larger"]


async def test_an_authorization_that_expired_uncaptured_had_taken_nothing(history: History):
    await history.see(*usual())

    await history.see(refund("a", 0, of=charge("big"), amount=60_000, reason="expired_uncaptured_charge"))

    assert await history.anomalies() == []


@pytest.mark.parametrize("status", ["failed", "canceled"])
async def test_a_refund_that_failed_ends_it(history: History, status: str):
    await history.see(*usual(), refund("a", 0, of=charge("big"), amount=60_000, status="pending"))

    outcome = await history.see(refund("a", 0, of=charge("big"), amount=60_000, status=status, snapshot=2))

    anomaly = await history.anomaly()
    assert [finding.anomaly_id for finding in outcome.resolved] == [anomaly.anomaly_id]
    assert (anomaly.status, anomaly.resolution) == ("resolved", "automatic")


async def test_each_large_refund_is_an_anomaly_and_told_once(history: History):
    given = [refund(f"r_{i}", i, of=charge(f"big_{i}"), amount=60_000) for i in range(2)]
    await history.see(*usual(), *given)
    outcome = await history.see(*given)

    assert (outcome.opened, outcome.updated) == ((), ())
    assert [anomaly.subject for anomaly in await history.anomalies()] == ["re_r_0", "re_r_1"]


async def test_parts_of_a_charge_are_judged_one_by_one(history: History):
    await history.see(*usual(amount=40_000))

    await history.see(*(refund(f"r_{i}", i, of=charge("big", amount_refunded=(i + 1) * 50_000), amount=50_000) for i in range(4)))

    assert await history.anomalies() == []


async def test_late_charges_do_not_change_what_was_large(history: History):
    await history.see(*usual(), refund("a", 0, of=charge("big"), amount=60_000))
    before = await history.anomaly()

    await history.see(*(charge(f"late_{i}", -2 * DAY + i, amount=900_000) for i in range(30)))

    assert await history.anomalies(NAME) == [before]


async def test_a_connected_account_is_measured_by_its_own_charges(history: History):
    await history.see(*usual(), *usual(name="other", amount=90_000, account="acct_2"))

    of_own, of_other = charge("own"), charge("other", account="acct_2")
    await history.see(refund("own", 0, of=of_own, amount=60_000), refund("other", 0, of=of_other, amount=60_000))
    await history.see(refund("larger", 5, of=of_other, amount=720_000))

    assert [anomaly.subject for anomaly in await history.anomalies()] == ["re_own", "re_larger acct_2"]


async def test_a_tenant_can_tune_what_is_large(history: History):
    history.thresholds = {NAME: LargeRefund(min_amount=10, median_factor=1, large_factor=0.5, critical_factor=2)}

    await history.see(*usual(), refund("a", 0, of=charge("a"), amount=5000), refund("b", 0, of=charge("b"), amount=4999))

    anomaly = await history.anomaly()
    assert (anomaly.subject, anomaly.severity) == ("re_a", "warning")
