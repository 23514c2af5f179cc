from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from billingwatch.billing.rows import Charge
from billingwatch.detection.detectors.revenue_drop import RevenueDrop

from .history import DAY, History, at, charge, failed, refund

WEEK = 7 * DAY


@pytest.fixture(autouse=True)
def _what_else_sales_may_show_is_not_told_of(history: History) -> None:
    history.only = "revenue_drop"


def sales(
    start: float, end: float, *, minutes: float = 30, name: str = "s", when: Callable[[float], bool] = lambda _: True, **fields: Any
) -> list[Charge]:
    """A sale of about 10.00 every so many minutes, where `when` allows."""
    times = [start + i * minutes for i in range(int((end - start) / minutes))]
    return [
        charge(f"{name}_{minute:.0f}", minute, **{"amount": 700 + int(minute * 7919) % 600, **fields}) for minute in times if when(minute)
    ]


async def test_a_checkout_that_stopped_is_seen_within_hours_and_before_the_day_is_over(history: History):
    """NOON is a Monday; the last sale is a minute before it."""
    await history.see(*sales(-4 * WEEK - DAY, 0))
    for hour in range(9):
        await history.tick(at(60 * hour))

    anomaly = await history.anomaly()
    assert (anomaly.detector, anomaly.subject, anomaly.status) == ("revenue_drop", "usd", "open")
    assert at(180) <= anomaly.opened_at <= at(360)
    assert anomaly.severity == "critical"
    assert anomaly.amounts["usd"] == anomaly.evidence["numbers"]["usual_amount"] - anomaly.evidence["numbers"]["amount"]


async def test_the_evidence_reproduces_the_verdict(history: History):
    await history.see(*sales(-4 * WEEK - DAY, 0, amount=1000))
    await history.tick(at(6 * 60))

    anomaly = await history.anomaly()
    numbers = anomaly.evidence["numbers"]
    assert (numbers["amount"], numbers["usual_amount"], numbers["payments"], numbers["usual_payments"]) == (0, 12000, 0, 12)
    assert (numbers["window_hours"], numbers["peak_at"], numbers["currency"]) == (6, at(6 * 60).isoformat(), "usd")
    assert numbers["amounts_of_weeks_before"] == [12000] * 4
    assert anomaly.summary == "0.00 USD came in within 6 hours until 2026-03-02 18:00 UTC, usually 120.00 USD (100% less)"


async def test_steady_sales_are_fine(history: History):
    await history.see(*sales(-5 * WEEK, DAY))
    await history.tick(at(DAY))

    assert await history.anomalies() == []


async def test_the_night_is_compared_with_nights_and_midnight_is_no_drop(history: History):
    """The day so far against whole days fell at every midnight."""
    await history.see(*sales(-5 * WEEK, 3 * DAY, minutes=15, when=lambda minute: 8 <= (minute / 60 + 12) % 24 < 20))
    await history.tick(at(3 * DAY))

    assert await history.anomalies() == []


async def test_a_weekend_without_sales_is_compared_with_weekends(history: History):
    await history.see(*sales(-5 * WEEK, 8 * DAY, minutes=15, when=lambda minute: (minute / DAY + 0.5) % 7 < 5))
    await history.tick(at(8 * DAY))

    assert await history.anomalies() == []


async def test_the_day_after_the_renewals_of_a_month_is_no_drop(history: History):
    """Two hundred renewals on the first of February and of March, none on the same weekdays around."""
    february, march = -29 * DAY, -DAY
    peaks = [charge(f"r{peak}_{i}", peak + i) for peak in (february, march) for i in range(200)]
    await history.see(*sales(-6 * WEEK, 10 * DAY), *peaks)
    await history.tick(at(10 * DAY))

    assert await history.anomalies() == []


async def test_a_first_of_the_month_with_fewer_renewals_is_no_drop(history: History):
    peaks = [charge(f"r{number}_{i}", -29 * DAY + number * 28 * DAY + i) for number, count in ((0, 300), (1, 80)) for i in range(count)]
    await history.see(*sales(-6 * WEEK, 10 * DAY), *peaks)
    await history.tick(at(10 * DAY))

    assert await history.anomalies() == []


async def test_a_round_of_annual_renewals_is_no_drop_a_week_later(history: History):
    await history.see(*sales(-5 * WEEK, 0), *(charge(f"y_{i}", -WEEK - 300 + i, amount=120_000) for i in range(60)))
    await history.tick(at(0))

    assert await history.anomalies() == []


async def test_days_of_a_sale_in_two_of_three_weeks_do_not_make_an_ordinary_day_a_drop(history: History):
    """NOON's weekday had three times as many sales one and two weeks ago, and as many as now three weeks ago, when history begins."""
    bargains = [sale for weeks in (1, 2) for sale in sales(-weeks * WEEK, DAY - weeks * WEEK, minutes=15, name=f"bargain_{weeks}")]
    await history.see(*sales(-3 * WEEK - DAY, DAY), *bargains)
    await history.tick(at(DAY))

    assert await history.anomalies() == []


async def test_a_day_of_a_sale_in_one_of_three_weeks_hides_no_drop(history: History):
    """Only weeks that sold less than usual can explain why it is little now."""
    await history.see(*sales(-3 * WEEK - DAY, DAY, when=thinned(0.8)), *sales(-2 * WEEK, DAY - 2 * WEEK, minutes=15, name="bargain"))
    await history.tick(at(DAY))

    assert (await history.anomaly()).subject == "usd"


async def test_a_holiday_on_which_two_of_five_do_not_buy_is_no_drop(history: History):
    """A thousand sales on NOON's weekday, and nothing told of the others."""
    ordinary = thinned(0.42)
    for currency, minutes in {"usd": 2, "eur": 5, "gbp": 10}.items():
        times = {"minutes": minutes, "when": lambda minute: minute % WEEK < DAY and ordinary(minute)}
        await history.see(*sales(-5 * WEEK, DAY, name=currency, currency=currency, **times))
    await history.tick(at(DAY))

    assert await history.anomalies() == []


@pytest.mark.parametrize(("lost_since", "drops"), [(0, 1), (-6 * 60, 0)])
async def test_hours_in_which_half_is_lost_are_a_drop_where_the_hours_before_were_as_ever(history: History, lost_since: int, drops: int):
    """Sales from six to six; half are lost in the afternoon, or since the morning, as on a holiday."""

    def comes(minute: float) -> bool:
        return (minute + 6 * 60) % DAY < 12 * 60 and (minute < lost_since or minute // 2 % 2 == 0)

    await history.see(*sales(-4 * WEEK - DAY, lost_since + 6 * 60, minutes=2, when=comes))
    await history.tick(at(lost_since + 6 * 60))

    assert len(await history.anomalies()) == drops


async def test_three_weeks_that_agree_are_enough(history: History):
    await history.see(*sales(-3 * WEEK - DAY, 0))
    await history.tick(at(DAY))

    assert (await history.anomaly()).subject == "usd"


async def test_one_large_sale_does_not_make_its_absence_a_drop(history: History):
    large = [charge(f"l_{week}", -week * WEEK - 30, amount=2_000_000) for week in range(1, 5)]
    await history.see(*sales(-5 * WEEK, 0), *large)
    await history.tick(at(0))

    assert await history.anomalies() == []


async def test_a_tiny_tenant_with_a_sale_every_few_days_is_not_judged(history: History):
    await history.see(*sales(-8 * WEEK, 0, minutes=3 * DAY, amount=90_000))
    await history.tick(at(20 * DAY))

    assert await history.anomalies() == []


async def test_growth_and_decline_are_no_drops(history: History):
    """A tenth more or less each week."""

    def trend(factor: float) -> Callable[[float], bool]:
        return lambda minute: (minute * 7919 / 30) % 1000 < 600 * factor ** (minute / WEEK)

    await history.see(
        *sales(-6 * WEEK, 0, minutes=12, name="down", when=trend(0.9)),
        *sales(-6 * WEEK, 0, minutes=12, name="up", currency="eur", when=trend(1.1)),
    )
    await history.tick(at(0))

    assert await history.anomalies() == []


async def test_less_than_three_weeks_of_history_is_learning(history: History):
    await history.see(*sales(-2.9 * WEEK, 0))
    await history.tick(at(12 * 60))

    assert await history.anomalies() == []


async def test_weeks_without_sales_count_as_zero(history: History):
    """Two of five weeks had sales: the usual is none."""
    await history.see(*sales(-5 * WEEK - DAY, 0, when=lambda minute: minute < -5 * WEEK or minute >= -2 * WEEK))
    await history.tick(at(12 * 60))

    assert await history.anomalies() == []


async def test_an_outage_weeks_before_hides_no_drop(history: History):
    await history.see(*sales(-4 * WEEK - DAY, 0, when=lambda minute: not -2 * WEEK - DAY <= minute <= -2 * WEEK + DAY))
    await history.tick(at(12 * 60))

    assert (await history.anomalies())[-1].last_seen_at == at(12 * 60)


async def test_currencies_are_never_added_up(history: History):
    """The yen stop; a hundred times as much in cents goes on."""
    await history.see(*sales(-4 * WEEK - DAY, 0, name="jpy", currency="jpy"), *sales(-4 * WEEK - DAY, DAY, amount=100_000))
    await history.tick(at(12 * 60))

    anomaly = await history.anomaly()
    assert (anomaly.subject, list(anomaly.amounts)) == ("jpy", ["jpy"])


async def test_connected_accounts_are_judged_apart(history: History):
    await history.see(*sales(-4 * WEEK - DAY, 0, name="c", account="acct_2"), *sales(-4 * WEEK - DAY, DAY, minutes=5))
    await history.tick(at(12 * 60))

    assert (await history.anomaly()).subject == "usd acct_2"


async def test_refunds_are_no_drop(history: History):
    sold = sales(-4 * WEEK - DAY, 0)
    await history.see(*sold)
    given_back = [
        charge(row.charge_id[3:], (row.created_at - at(0)).total_seconds() / 60, amount=row.amount, amount_refunded=row.amount, snapshot=2)
        for row in sold[-50:]
    ]
    await history.see(*given_back, *(refund(f"r_{i}", -10, of=row) for i, row in enumerate(sold[-50:])))
    await history.tick(at(0))

    assert await history.anomalies() == []


async def test_what_is_decided_or_captured_later_counts_from_the_start(history: History):
    debits = [charge(f"d_{i}", -2 * DAY + i * 60, status="pending", amount=1000, payment_method_type="us_bank_account") for i in range(48)]
    await history.see(
        *sales(-4 * WEEK, 0, when=lambda minute: minute < -2 * DAY),
        *debits,
        *sales(-2 * DAY + 30, 0, minutes=60, name="a", captured=False),
    )
    await history.tick(at(0))
    pending = await history.anomalies()
    bounced = [failed(f"d_{i}", -2 * DAY + i * 60, snapshot=2, payment_method_type="us_bank_account", amount=1000) for i in range(48)]
    await history.see(*bounced, *sales(0, 7 * DAY))
    await history.tick(at(7 * DAY))

    assert pending == []
    assert await history.anomalies("revenue_drop") == []


async def test_failed_payments_are_no_revenue(history: History):
    await history.see(*sales(-4 * WEEK - DAY, 0), *(failed(f"f_{i}", i * 30) for i in range(24)))
    await history.tick(at(12 * 60))

    assert [anomaly.detector for anomaly in await history.anomalies("revenue_drop")] == ["revenue_drop"]


async def test_an_hour_that_is_delivered_late_takes_the_drop_back(history: History):
    await history.see(*sales(-4 * WEEK - DAY, 0))
    await history.tick(at(8 * 60))
    before = await history.anomaly()

    outcome = await history.see(*sales(0, 8 * 60))

    assert before.status == "open"
    assert [finding.resolution for finding in outcome.resolved] == ["retracted"]


async def test_it_ends_soon_after_sales_are_back(history: History):
    await history.see(*sales(-4 * WEEK - DAY, 0), *sales(12 * 60, 3 * DAY))
    await history.tick(at(2 * DAY))
    await history.settle(as_of=at(2 * DAY))

    anomaly = await history.anomaly()
    assert anomaly.status == "resolved"
    assert anomaly.last_seen_at <= at(18 * 60)


async def test_prices_that_fell_are_a_drop_although_as_many_pay(history: History):
    await history.see(*sales(-4 * WEEK - DAY, 0, amount=5000, minutes=10), *sales(0, DAY, amount=500, minutes=10))
    await history.tick(at(DAY))

    anomaly = await history.anomaly()
    assert anomaly.severity == "critical"
    assert anomaly.evidence["numbers"]["payments"] == pytest.approx(anomaly.evidence["numbers"]["usual_payments"], abs=1)


@pytest.mark.parametrize(("missing", "severity"), [(0.6, "warning"), (1, "critical")])
async def test_severity_tells_how_deep_it_is(history: History, missing: float, severity: str):
    await history.see(*sales(-4 * WEEK - DAY, 0, minutes=5), *sales(0, DAY, minutes=5, when=lambda minute: minute / 5 % 10 >= 10 * missing))
    await history.tick(at(DAY))

    assert (await history.anomaly()).severity == severity


@pytest.mark.parametrize("thresholds", [RevenueDrop(min_payments=100), RevenueDrop(min_strength=20), RevenueDrop(baseline_weeks=12)])
async def test_thresholds_count(history: History, thresholds: RevenueDrop):
    history.thresholds = {"revenue_drop": thresholds}
    await history.see(*sales(-4 * WEEK - DAY, 0))
    await history.tick(at(12 * 60))

    assert len(await history.anomalies()) == (1 if thresholds.baseline_weeks == 12 else 0)


def thinned(share: float) -> Callable[[float], bool]:
    """Lose this share of the sales from NOON on, evenly."""
    return lambda minute: minute < 0 or (minute * 7919) % 1000 >= 1000 * share


async def test_a_part_that_is_missing_for_two_days_shows_where_one_day_proves_nothing(history: History):
    """A sale an hour, two of three of them lost."""
    await history.see(*sales(-4 * WEEK - DAY, 2 * DAY, minutes=60, when=thinned(0.65)))
    for day in (1, 2):
        await history.tick(at(day * DAY))
        found = await history.anomalies()
        assert len(found) == day - 1

    numbers = found[0].evidence["numbers"]
    assert numbers["window_hours"] == 48
    assert numbers["strength"] >= 4


async def test_payments_in_all_currencies_prove_what_those_in_one_are_too_few_for(history: History):
    alone = sales(-4 * WEEK - DAY, DAY, minutes=103, when=thinned(0.65))
    beside = [
        sale
        for currency in ("eur", "gbp", "jpy")
        for sale in sales(-4 * WEEK - DAY, DAY, minutes=103, name=currency, currency=currency, when=thinned(0.65))
    ]
    await history.see(*alone)
    await history.tick(at(DAY))
    before = await history.anomalies()
    await history.see(*beside)
    await history.tick(at(DAY))

    assert before == []
    numbers = next(found for found in await history.anomalies() if found.subject == "usd").evidence["numbers"]
    assert numbers["usual_payments_in_all_currencies"] > 3 * numbers["usual_payments"]


async def test_other_currencies_that_sell_as_ever_prove_nothing_about_one(history: History):
    await history.see(
        *sales(-4 * WEEK - DAY, DAY, minutes=103, when=thinned(0.65)),
        *sales(-4 * WEEK - DAY, DAY, minutes=20, name="eur", currency="eur"),
    )
    await history.tick(at(DAY))

    assert await history.anomalies() == []


async def test_an_outage_that_is_over_does_not_begin_again_in_the_long_window(history: History):
    """Nothing for a day, and most of a day later nothing for three hours."""

    def sells(minute: float) -> bool:
        return not 0 <= minute < DAY and not DAY + 18 * 60 <= minute < DAY + 21 * 60

    await history.see(*sales(-4 * WEEK - DAY, 3 * DAY, when=sells))
    await history.tick(at(3 * DAY))

    assert (await history.anomaly()).last_seen_at <= at(DAY + 6 * 60)
