from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from billingwatch.detection.detectors.delivery_storm import DeliveryStorm

from .history import DAY, Delivery, History, at, delivery


def again_and_again(events: int, times: int, start: float = 1, *, apart: float = 60, **fields: Any) -> Iterable[Delivery]:
    return [delivery(f"s{start}_{i}", start + i + n * apart, **fields) for n in range(times) for i in range(events)]


async def test_many_events_delivered_many_times_are_a_storm(history: History):
    await history.receive(*again_and_again(12, 6))
    await history.tick(at(600))

    anomaly = await history.anomaly()
    assert (anomaly.detector, anomaly.subject, anomaly.severity, anomaly.status) == ("delivery_storm", "endpoint", "warning", "open")
    assert (anomaly.opened_at, anomaly.last_seen_at, anomaly.amounts) == (at(60), at(360), {})
    assert anomaly.summary == "12 events were delivered 72 times in all, one of them 6 times; each was accepted at the first delivery"
    assert anomaly.evidence["numbers"] == {
        "events": 12,
        "deliveries": 72,
        "most_deliveries_of_one": 6,
        "types": {"charge.succeeded": 12},
    }
    assert len(anomaly.evidence["event_ids"]) == 12


async def test_one_event_delivered_more_often_than_stripe_tries_in_a_day_is_a_storm(history: History):
    await history.receive(*again_and_again(1, 8, apart=10))
    await history.tick(at(600))

    assert (await history.anomaly()).summary == "One event was delivered 8 times; it was accepted at the first delivery"


@pytest.mark.parametrize(("events", "times"), [(200, 2), (200, 4), (9, 7), (1, 7)])
async def test_retries_and_resends_of_an_ordinary_day_are_none(history: History, events: int, times: int):
    await history.receive(*again_and_again(events, times, apart=15))
    await history.tick(at(DAY))

    assert await history.anomalies() == []


async def test_repeated_events_scattered_over_weeks_are_none(history: History):
    for day in range(20):
        await history.receive(*again_and_again(3, 7, start=1 + day * DAY))
    await history.tick(at(21 * DAY))

    assert await history.anomalies() == []


async def test_a_storm_that_is_found_hour_by_hour_is_the_same_as_in_one_go(history: History):
    deliveries = sorted(again_and_again(12, 8), key=lambda each: each.received_at)
    for hour in range(1, 12):
        await history.receive(*(each for each in deliveries if at(60 * (hour - 1)) < each.received_at <= at(60 * hour)))
        await history.tick(at(60 * hour))

    anomaly = await history.anomaly()
    assert (anomaly.opened_at, anomaly.last_seen_at, anomaly.evidence["numbers"]["deliveries"]) == (at(60), at(480), 96)


async def test_it_ends_after_a_day_and_more_without_repeated_deliveries(history: History):
    await history.receive(*again_and_again(12, 6))
    await history.tick(at(600))
    await history.settle(as_of=at(600))
    while_fresh = await history.anomaly()
    await history.settle(as_of=at(360 + 31 * 60))

    assert while_fresh.status == "open"
    assert (await history.anomaly()).status == "resolved"


async def test_a_storm_weeks_later_is_another(history: History):
    await history.receive(*again_and_again(12, 6), *again_and_again(12, 6, start=14 * DAY + 1))
    await history.tick(at(15 * DAY))

    assert [anomaly.opened_at for anomaly in await history.anomalies()] == [at(60), at(14 * DAY + 60)]


async def test_connected_accounts_come_through_an_endpoint_of_their_own(history: History):
    await history.receive(*again_and_again(6, 6), *again_and_again(12, 6, start=1.5, account="acct_2"))
    await history.tick(at(600))

    assert (await history.anomaly()).subject == "endpoint connect"


async def test_events_of_the_wrong_mode_are_not_counted(history: History):
    await history.receive(*again_and_again(12, 6, disposition="ignored"))
    await history.tick(at(600))

    assert await history.anomalies() == []


async def test_hundreds_of_events_are_critical(history: History):
    await history.receive(*again_and_again(100, 5, apart=200))
    await history.tick(at(DAY))

    assert (await history.anomaly()).severity == "critical"


async def test_thresholds_count(history: History):
    history.thresholds = {"delivery_storm": DeliveryStorm(min_deliveries=3, min_events=2)}
    await history.receive(*again_and_again(2, 3))
    await history.tick(at(600))

    assert (await history.anomaly()).evidence["events"] == 2
