from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billingwatch.billing.rows import Subscription
from billingwatch.detection.detectors.churn_spike import ChurnSpike
from billingwatch.detection.engine import find_incidents
from billingwatch.detection.registry import DETECTORS
from billingwatch.detection.store import Anomaly
from billingwatch.postgres.connections import TenantConnection

from .history import DAY, LATER, NOON, History, at, charge, subscription
from .test_order import by_history

HOUR = 60
LATENESS = 3 * DAY


def renewals(*, count: int = 100, since: int = -60, account: str | None = None, **fields: Any) -> Iterator[Subscription]:
    """Subscriptions that are heard of once a month until NOON and stay."""
    for number in range(count):
        for month, day in enumerate(range(since, 0, 30)):
            yield subscription(
                f"stays_{account}_{number}",
                since * DAY,
                snapshot=1 + month,
                updated=day * DAY + number * HOUR / 2,
                account=account,
                **fields,
            )


def ends(
    name: str, minutes: Iterable[float], *, status: str = "active", account: str | None = None, **fields: Any
) -> Iterator[Subscription]:
    """Subscriptions that had been paying for weeks, and ended."""
    for number, minute in enumerate(minutes):
        key = f"{name}_{number}"
        yield subscription(key, minute - 20 * DAY, updated=minute - 20 * DAY, account=account, **fields)
        if status != "active":
            yield subscription(key, minute - 20 * DAY, snapshot=2, updated=minute - 5 * DAY, status=status, account=account, **fields)
        yield subscription(key, minute - 20 * DAY, snapshot=3, updated=minute, status="canceled", account=account, **fields)


async def judged(history: History, *rows: Subscription, until: float = 2 * DAY) -> list[Anomaly]:
    """From the day before NOON on."""
    await history.see(*rows)
    history.judged_until = history.judged_until or at(-DAY)
    await history.tick(at(until))
    return await history.anomalies()


def now(count: int) -> list[float]:
    return [number * 5 for number in range(count)]


async def test_many_ends_within_days_are_an_anomaly(history: History):
    found = await judged(history, *renewals(), *ends("usual", [-15 * DAY, -25 * DAY]), *ends("spike", now(10)))

    (anomaly,) = found
    assert (anomaly.detector, anomaly.subject, anomaly.severity, anomaly.status) == ("churn_spike", "churn", "warning", "open")
    assert (anomaly.opened_at, anomaly.last_seen_at) == (at(HOUR), at(HOUR))
    assert anomaly.summary == (
        "10 subscriptions ended within 7 days (at most 1 in such a time before), 0 of all 10 after a failed payment; 100.00 USD a month lost"
    )
    assert anomaly.amounts == {"usd": 10_000}
    assert anomaly.evidence["objects"]["subscriptions"][:2] == ["sub_spike_0", "sub_spike_1"]


async def test_an_hour_is_judged_by_what_had_ended_by_then(history: History):
    (anomaly,) = await judged(history, *renewals(), *ends("spike", [minute * HOUR for minute in range(10)]))

    assert (anomaly.opened_at, anomaly.last_seen_at) == (at(4 * HOUR), at(9 * HOUR))
    assert anomaly.evidence["numbers"]["peak_ended"] == 10


async def test_ends_after_failed_payments_are_told_apart(history: History):
    rows = [*ends("left", now(4)), *ends("late", now(3), status="past_due"), *ends("unpaid", now(2), status="unpaid")]

    (anomaly,) = await judged(history, *renewals(), *rows)

    assert (anomaly.evidence["numbers"]["voluntary"], anomaly.evidence["numbers"]["involuntary"]) == (4, 5)


async def test_the_two_subscriptions_of_a_tiny_tenant_are_no_spike(history: History):
    assert await judged(history, *renewals(count=2), *ends("all", now(2))) == []


async def test_a_cancellation_counts_when_it_ends_and_not_when_it_is_announced(history: History):
    announced = [
        subscription(f"a_{i}", -40 * DAY, snapshot=2 + number, updated=number * 5 * DAY + i, cancel_at_period_end=True, status=status)
        for i in range(10)
        for number, status in enumerate(("active", "canceled"))
    ]

    assert await judged(history, *renewals(), *announced, until=4 * DAY) == []
    assert [anomaly.opened_at for anomaly in await judged(history, until=6 * DAY)] == [at(5 * DAY + HOUR)]


@pytest.mark.parametrize("before", ["trialing", "incomplete"])
async def test_what_never_paid_is_no_churn(history: History, before: str):
    rows = [
        subscription(f"a_{i}", -7 * DAY, snapshot=1 + number, updated=-7 * DAY * (1 - number) + i, status=status, trial_end_at=at(0))
        for i in range(20)
        for number, status in enumerate((before, "canceled"))
    ]

    assert await judged(history, *renewals(), *rows) == []


async def test_a_first_payment_that_never_came_is_no_churn(history: History):
    rows = [subscription(f"a_{i}", -1, updated=i, status="incomplete_expired") for i in range(20)]

    assert await judged(history, *renewals(), *rows) == []


async def test_a_plan_for_nothing_is_no_churn(history: History):
    assert await judged(history, *renewals(), *ends("free", now(20), mrr=0)) == []


async def test_of_a_subscription_that_was_never_heard_of_before_its_trial_decides(history: History):
    paying = [subscription(f"p_{i}", -90 * DAY, updated=i, status="canceled", trial_end_at=at(-60 * DAY)) for i in range(5)]
    trying = [subscription(f"t_{i}", -9 * DAY, updated=i, status="canceled", trial_end_at=at(DAY)) for i in range(20)]

    (anomaly,) = await judged(history, *renewals(), *paying, *trying)

    assert anomaly.evidence["numbers"]["ended"] == 5


async def test_an_end_that_is_told_of_again_counts_once(history: History):
    told = list(ends("spike", now(4)))
    again = [subscription(f"spike_{i}", -20 * DAY, snapshot=4, updated=DAY, status="canceled") for i in range(4)]

    assert await judged(history, *renewals(), *told, *again) == []


async def test_ends_that_come_every_month_with_the_renewals_are_expected(history: History):
    month = [-31 * DAY + minute for minute in now(12)]

    assert await judged(history, *renewals(), *ends("last", month), *ends("this", now(12)), until=8 * DAY) == []


async def test_a_busy_tenants_ordinary_week_is_no_spike(history: History):
    weekly = [-DAY * day / 4 for day in range(4 * 45)]

    assert await judged(history, *renewals(count=400), *ends("usual", weekly), *ends("few", now(8))) == []


async def test_one_busier_week_among_quiet_ones_hides_no_spike(history: History):
    """Seven against a busiest week of two are no accident where three ended in four weeks; the busiest alone would say they may be."""
    before = ends("before", [-15 * DAY, -15.1 * DAY, -25 * DAY])

    (anomaly,) = await judged(history, *renewals(), *before, *ends("spike", now(7)))

    assert (anomaly.evidence["numbers"]["busiest_before"], anomaly.evidence["numbers"]["peak_ended"]) == (2, 7)
    assert anomaly.evidence["numbers"]["strength"] > 3.5


@pytest.mark.parametrize(("apart", "found"), [(5, 1), (1.4 * DAY, 0)])
async def test_as_many_within_a_day_are_less_of_an_accident_than_within_a_week(history: History, apart: float, found: int):
    before = ends("before", [-15 * DAY, -20 * DAY, -21 * DAY, -25 * DAY, -33 * DAY])

    assert len(await judged(history, *renewals(), *before, *ends("many", [-number * apart for number in range(5)]), until=DAY)) == found


async def test_less_than_twice_the_busiest_week_is_no_spike_however_quiet_the_others_were(history: History):
    before = ends("before", [-15 * DAY - i for i in range(4)])

    assert await judged(history, *renewals(), *before, *ends("many", now(7))) == []


async def test_until_there_are_weeks_to_compare_with_it_is_learning(history: History):
    assert await judged(history, *renewals(since=-36), *ends("spike", now(20))) == []
    assert len(await judged(history, *ends("more", [3 * DAY + i for i in range(20)]), until=4 * DAY)) == 1


async def test_of_a_tenant_with_few_subscriptions_charges_tell_how_long_it_is_watched(history: History):
    young = await judged(history, *renewals(since=-36), *ends("spike", now(5)), until=2 * DAY)
    await history.see(charge("first", -45 * DAY))

    watched = await judged(history, *ends("more", [HOUR]), until=2 * DAY)

    assert young == []
    assert [anomaly.evidence["numbers"]["ended"] for anomaly in watched] == [6]


async def test_a_small_part_of_the_subscriptions_is_no_spike_and_a_large_one_critical(history: History):
    small = await judged(history, *renewals(count=400), *ends("spike", now(7)))
    (large,) = await judged(history, *ends("more", [3 * DAY + i for i in range(40)]), until=4 * DAY)

    assert (small, large.severity) == ([], "critical")


async def test_accounts_are_judged_apart_and_currencies_never_added_up(history: History):
    elsewhere = [
        *renewals(account="acct_2"),
        *ends("jpy", now(5), account="acct_2", currency="jpy"),
        *ends("usd", now(4), account="acct_2"),
    ]

    (anomaly,) = await judged(history, *renewals(), *ends("few", now(4)), *elsewhere)

    assert (anomaly.subject, anomaly.amounts) == ("churn acct_2", {"jpy": 5000, "usd": 4000})


async def test_it_settles_when_a_window_has_passed_without(history: History):
    (anomaly,) = await judged(history, *renewals(), *ends("spike", now(10)), until=5 * DAY)

    await history.settle(as_of=at(7 * DAY + HOUR))

    (after,) = await history.anomalies()
    assert (anomaly.status, anomaly.last_seen_at) == ("open", at(HOUR))
    assert (after.status, after.resolved_at) == ("resolved", at(7 * DAY + HOUR))


async def test_thresholds_say_what_is_far_above(history: History):
    history.thresholds = {"churn_spike": ChurnSpike(window_days=1, min_ended=3, min_strength=2, min_share=0.02)}

    found = await judged(history, *renewals(), *ends("spike", [1, 2, 3]))

    assert [(anomaly.opened_at, anomaly.last_seen_at) for anomaly in found] == [(at(HOUR), at(HOUR))]


async def test_a_late_end_changes_the_hours_that_were_judged(history: History):
    told = list(ends("spike", now(5)))
    before = await judged(history, *renewals(), *told[:-1])

    await history.see(told[-1])

    assert before == []
    assert [anomaly.opened_at for anomaly in await history.anomalies()] == [at(HOUR)]


LOW = {"churn_spike": ChurnSpike(window_days=1, min_ended=3, min_strength=1, min_share=0.01)}


def happenings(random: Random) -> Iterator[tuple[float, Subscription]]:
    """Two months in which subscriptions come, fall behind, recover and end, often together."""
    accounts = (None, None, "acct_2")
    bursts = [random.uniform(-25, 0) * DAY for _ in range(2)]
    for number in range(random.randint(20, 40)):
        minutes, snapshot, account = -60 * DAY + number, 1, random.choice(accounts)
        fields: dict[str, Any] = {"account": account, "currency": random.choice(("usd", "jpy")), "mrr": random.choice((0, 1000, 1000))}
        states = [(minutes, random.choice(("active", "active", "trialing")))]
        end = random.choice(bursts) + random.choice((0, 30, HOUR, random.uniform(0, DAY)))
        if random.random() < 0.4:
            states.append((end - random.choice((1, 30, DAY)), random.choice(("past_due", "active"))))
        states.append((end, random.choice(("canceled", "canceled", "active", "incomplete_expired"))))
        for snapshot, (when, status) in enumerate(states, start=1):
            yield when, subscription(f"s{number}", minutes, snapshot=snapshot, updated=when, status=status, **fields)


async def anomalies_after(tenant: TenantConnection, visits: list[tuple[float, list[Subscription]]]) -> list[dict[str, Any]]:
    """Each visit is followed by the judgement of the hours that have passed."""
    history = History(tenant)
    history.thresholds = LOW
    await tenant.execute("SAVEPOINT untouched")
    for minutes, rows in visits:
        await history.see(*rows)
        await history.tick(at(minutes))
    await history.settle(as_of=LATER)
    found = [by_history(anomaly) for anomaly in await history.anomalies("churn_spike")]
    await tenant.execute("ROLLBACK TO SAVEPOINT untouched")
    return sorted(found, key=lambda said: str(said["fingerprint"]))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), most=st.integers(1, 20))
async def test_however_late_stripe_delivers_the_same_hours_are_judged_alike(tenant_connection: TenantConnection, seed: int, most: int):
    random = Random(seed)
    happened = list(happenings(random))
    arrived = sorted(
        ((when + random.choice((0, 0, random.uniform(0, LATENESS))), row) for when, row in happened), key=lambda arrival: arrival[0]
    )
    visits: list[tuple[float, list[Subscription]]] = []
    while arrived:
        some, arrived = arrived[:most], arrived[most:]
        visits.append((some[-1][0], [row for _, row in some]))

    in_one_go = await anomalies_after(tenant_connection, [(5 * DAY, [row for _, row in happened])])
    in_visits = await anomalies_after(tenant_connection, [*visits, (5 * DAY, [])])

    assert in_visits == in_one_go


async def test_a_backtest_finds_what_was_found(history: History):
    (anomaly,) = await judged(history, *renewals(), *ends("spike", now(10)))
    detector = DETECTORS["churn_spike"]

    (incident,) = await find_incidents(history.tenant, detector, ChurnSpike(), since=NOON - timedelta(days=7), until=at(2 * DAY))

    assert (incident.opened_at, incident.last_seen_at, incident.summary) == (anomaly.opened_at, anomaly.last_seen_at, anomaly.summary)
