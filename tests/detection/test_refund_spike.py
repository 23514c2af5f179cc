from __future__ import annotations

import pytest

from billingwatch.billing.rows import Refund
from billingwatch.detection.detectors.refund_spike import RefundSpike

from .history import DAY, NOON, History, at, charge, refund

NAME = "refund_spike"


def given_back(
    name: str, count: int, *, start: float = 0, minutes: float = 240, account: str | None = None, **fields: object
) -> list[Refund]:
    """Refunds of as many charges, evenly over some minutes."""
    step = minutes / max(count - 1, 1)
    return [refund(f"{name}_{i}", start + i * step, of=charge(f"{name}_{i}", account=account), **fields) for i in range(count)]


def usual(per_day: int, *, days: int = 30, name: str = "usual", **fields: object) -> list[Refund]:
    """So many refunds every day, until four days ago."""
    return [row for day in range(4, 4 + days) for row in given_back(f"{name}_{day}", per_day, start=-day * DAY, **fields)]


# A tenant is learning until its first charge is old enough.
FIRST = charge("first", -34 * DAY)


async def test_far_more_refunds_than_usual_are_a_spike(history: History):
    await history.see(FIRST, *usual(2))

    await history.see(*given_back("a", 14, amount=500))

    anomaly = await history.anomaly()
    assert (anomaly.detector, anomaly.subject, anomaly.severity) == (NAME, "refunds", "warning")
    assert anomaly.summary == "14 charges were refunded within 24 hours (usually up to 2 a day); 70.00 USD given back"
    assert anomaly.amounts == {"usd": 7000}
    numbers = anomaly.evidence["numbers"]
    assert (numbers["refunds"], numbers["refunded_charges"], numbers["usual_refunded_charges"]) == (14, 14, 2.0)
    assert (anomaly.evidence["events"], len(anomaly.evidence["objects"]["charges"])) == (14, 14)


async def test_twice_what_is_needed_is_critical(history: History):
    await history.see(FIRST, *given_back("a", 20))

    assert (await history.anomaly()).severity == "critical"


async def test_a_growing_business_refunds_more_and_is_fine(history: History):
    await history.see(FIRST, *usual(10))

    await history.see(*given_back("a", 22))

    assert await history.anomalies() == []


async def test_few_refunds_of_a_tiny_tenant_are_no_spike(history: History):
    await history.see(FIRST)

    await history.see(*given_back("a", 5))

    assert await history.anomalies() == []


async def test_a_new_tenant_is_learning(history: History):
    await history.see(charge("first", -20 * DAY), *given_back("a", 50))

    assert await history.anomalies() == []


async def test_a_day_of_the_week_on_which_refunds_are_made_is_usual(history: History):
    fridays = [row for week in range(1, 5) for row in given_back(f"w{week}", 20, start=-week * 7 * DAY)]
    await history.see(FIRST, *fridays)
    before = {anomaly.anomaly_id for anomaly in await history.anomalies()}

    await history.see(*given_back("a", 22))

    assert {anomaly.anomaly_id for anomaly in await history.anomalies() if anomaly.opened_at >= NOON} <= before


async def test_one_bad_day_is_not_what_is_usual(history: History):
    await history.see(FIRST, *usual(1), *given_back("bad", 60, start=-10 * DAY))

    await history.see(*given_back("a", 15))

    assert [anomaly.evidence["numbers"]["usual_refunded_charges"] for anomaly in await history.anomalies()] == [1, 1]


@pytest.mark.parametrize("fields", [{"status": "failed"}, {"status": "canceled"}, {"reason": "expired_uncaptured_charge"}])
async def test_what_gave_nothing_back_does_not_count(history: History, fields: dict[str, str]):
    await history.see(FIRST, *given_back("a", 5), *given_back("b", 30, **fields))

    assert await history.anomalies() == []


async def test_refunds_that_fail_later_take_the_spike_back(history: History):
    await history.see(FIRST, *given_back("a", 10, status="pending"))
    assert len(await history.anomalies()) == 1

    outcome = await history.see(*given_back("a", 10, status="failed", snapshot=2)[:5])

    assert [finding.resolution for finding in outcome.resolved] == ["retracted"]
    assert await history.anomalies() == []


async def test_the_parts_of_one_charge_are_one_refunded_charge_and_add_up_to_its_amount(history: History):
    await history.see(FIRST, *given_back("a", 4))
    parts = [refund(f"part_{i}", i, of=charge("parted", amount_refunded=(i + 1) * 100), amount=100) for i in range(6)]

    await history.see(*parts)
    before = await history.anomalies()
    await history.see(refund("tenth", 250, of=charge("tenth")))

    anomaly = await history.anomaly()
    assert before == []
    assert (anomaly.evidence["numbers"]["refunds"], anomaly.evidence["numbers"]["refunded_charges"]) == (11, 6)
    assert anomaly.amounts == {"usd": 4 * 1000 + 600 + 1000}


async def test_amounts_far_above_the_usual_are_a_spike_in_their_currency(history: History):
    await history.see(FIRST, *usual(1), *usual(1, name="yen", currency="jpy", amount=100_000))

    await history.see(*given_back("a", 6, amount=20_000), *given_back("yen", 5, start=300, currency="jpy", amount=120_000))

    anomaly = await history.anomaly()
    assert anomaly.summary == "6 charges were refunded within 24 hours (more USD than usual); 600,000 JPY and 1,200.00 USD given back"
    numbers = anomaly.evidence["numbers"]
    assert (numbers["peak_currency"], numbers["peak_amount_without_largest"], numbers["usual_amount"]) == ("usd", 100_000, 1000)


async def test_one_large_refund_among_few_is_no_spike(history: History):
    await history.see(FIRST, *usual(1))

    await history.see(*given_back("a", 3), refund("large", 30, of=charge("large"), amount=5_000_000))

    assert await history.anomalies(NAME) == []


async def test_currencies_are_never_added_up(history: History):
    await history.see(FIRST, *given_back("a", 6, amount=500, currency="jpy"), *given_back("b", 6, amount=5000, currency="kwd"))

    anomaly = await history.anomaly()
    assert anomaly.amounts == {"jpy": 3000, "kwd": 30000}
    assert anomaly.summary.endswith("3,000 JPY and 30.000 KWD given back")


async def test_connected_accounts_have_a_usual_of_their_own(history: History):
    await history.see(FIRST, *usual(20), *given_back("a", 12, account="acct_2"), *given_back("b", 12))

    assert (await history.anomaly()).subject == "refunds acct_2"


async def test_late_refunds_do_not_change_the_usual(history: History):
    await history.see(FIRST, *given_back("a", 12))
    before = await history.anomaly()

    await history.see(*given_back("late", 8, start=-2 * DAY))

    assert (await history.anomalies(NAME))[-1] == before


async def test_a_spike_is_over_a_day_after_its_last_refund(history: History):
    outcome = await history.see(FIRST, *given_back("a", 12), as_of=at(241))
    over = await history.settle(as_of=at(240 + DAY))

    assert outcome.settle_at == at(240 + DAY)
    assert [finding.resolution for finding in over.resolved] == ["automatic"]


async def test_refunds_delivered_late_land_in_their_own_day(history: History):
    weeks = [row for day in range(20) for row in given_back(f"d{day}", 3, start=-day * DAY)]
    await history.see(FIRST, *weeks)

    assert await history.anomalies() == []


async def test_a_tenant_can_tune_the_window_and_the_counts(history: History):
    history.thresholds = {NAME: RefundSpike(window_hours=1, min_refunds=3, baseline_days=3, min_strength=2)}

    await history.see(charge("first", -8 * DAY), *given_back("a", 3, minutes=59), *given_back("b", 2, start=300))

    anomaly = await history.anomaly()
    assert (anomaly.opened_at, anomaly.last_seen_at) == (at(59), at(59))
