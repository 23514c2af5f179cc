from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from billingwatch.detection.detectors.webhook_lag import WebhookLag

from .history import DAY, Delivery, History, at, delivery, replayed


def every(minutes: float, name: str, start: float, end: float, **fields: Any) -> Iterable[Delivery]:
    return [delivery(f"{name}_{i}", start + i * minutes, **fields) for i in range(int((end - start) / minutes))]


async def test_events_that_come_at_once_are_fine(history: History):
    await history.receive(*every(2, "a", 1, 600, sent=3))
    await history.tick(at(660))

    assert await history.anomalies() == []


async def test_stripes_delay_is_told_from_ours(history: History):
    await history.receive(*every(2, "a", 1, 60, sent=1200))
    await history.tick(at(60))

    anomaly = await history.anomaly()
    assert (anomaly.detector, anomaly.subject, anomaly.severity, anomaly.status) == ("webhook_lag", "stripe", "warning", "open")
    assert (anomaly.opened_at, anomaly.last_seen_at, anomaly.amounts) == (at(60), at(60), {})
    assert anomaly.summary == (
        "Stripe sends events late: half of 29 took 20 min or longer, one in ten 20 min, in 1 h until 2026-03-02 13:00 UTC"
    )


async def test_the_networks_or_our_queues_delay_is_told_from_stripes(history: History):
    await history.receive(*every(2, "a", 1, 60, sent=2, travelled=45))
    await history.tick(at(60))

    anomaly = await history.anomaly()
    assert (anomaly.subject, anomaly.evidence["numbers"]["median_seconds"]) == ("network", 45)
    assert anomaly.evidence["event_ids"][0] == "evt_a_0"
    assert anomaly.evidence["events"] == 29


async def test_both_can_be_slow_at_once(history: History):
    await history.receive(*every(2, "a", 1, 60, sent=3000, travelled=45))
    await history.tick(at(60))

    assert {anomaly.subject for anomaly in await history.anomalies()} == {"stripe", "network"}


async def test_one_in_ten_being_very_late_is_enough(history: History):
    await history.receive(*every(2, "a", 1, 60, travelled=1), *every(10, "b", 2, 60, travelled=90))
    await history.tick(at(60))

    assert (await history.anomaly()).subject == "network"


async def test_one_retry_among_few_events_is_no_lag(history: History):
    """It is a tenth of them, and came before anything that could have overtaken it."""
    await history.receive(delivery("retried", 1, sent=3000), delivery("again", 2, sent=3000), *every(5, "a", 11, 60, sent=2))
    await history.tick(at(60))

    assert await history.anomalies() == []


async def test_retries_after_an_outage_of_ours_are_no_delay_of_stripes(history: History):
    """What failed for six hours is tried again in any order, while fresh events come at once."""
    await history.receive(
        *every(3, "fresh", 1, 120, sent=2),
        *(delivery(f"retried_{i}", 2 + i, occurred_at=at(-360 + 2 * i)) for i in range(118)),
    )
    await history.tick(at(180))

    assert await history.anomalies() == []


async def test_a_retry_of_a_three_day_old_event_is_no_lag(history: History):
    await history.receive(*every(3, "fresh", 1, 60), *(delivery(f"old_{i}", 5 + i, sent=3 * 86400) for i in range(50)))
    await history.tick(at(60))

    assert await history.anomalies() == []


async def test_a_backlog_that_stripe_works_off_in_order_is_its_delay(history: History):
    """Two hours of events arrive within forty minutes, the oldest first, as after an outage at Stripe."""
    await history.receive(*(delivery(f"late_{i}", 1 + i / 3, occurred_at=at(-120 + i)) for i in range(120)))
    await history.tick(at(60))

    anomaly = await history.anomaly()
    assert (anomaly.subject, anomaly.evidence["numbers"]["tried_before"]) == ("stripe", 0)


async def test_replayed_and_backfilled_events_are_no_lag(history: History):
    await history.receive(*(replayed(f"a_{i}", i, ago=DAY) for i in range(59)))
    await history.tick(at(60))

    assert await history.anomalies() == []


async def test_a_test_clock_in_the_future_hides_no_delay(history: History):
    await history.receive(delivery("clock", 0.5, occurred_at=at(300 * DAY)), *every(2, "a", 1, 60, sent=1200))
    await history.tick(at(60))

    assert (await history.anomaly()).evidence["numbers"]["samples"] == 29


async def test_few_events_are_not_judged(history: History):
    await history.receive(*every(6, "a", 1, 60, sent=3600))
    await history.tick(at(60))

    assert await history.anomalies() == []


async def test_a_lag_of_a_tenant_with_few_events_is_seen_in_those_of_the_days_before(history: History):
    """Three or four an hour, and none at night."""
    await history.receive(*every(20, "fine", -DAY, -DAY + 240), *every(20, "late", 1, 241, sent=3600))
    for hour in range(1, 13):
        await history.tick(at(60 * hour))

    anomaly = await history.anomaly()
    assert (anomaly.subject, anomaly.opened_at, anomaly.evidence["numbers"]["samples"]) == ("stripe", at(120), 10)


async def test_a_lag_of_few_events_goes_on_until_others_come_in_time(history: History):
    await history.receive(*every(20, "late", 1, 241, travelled=90), *every(20, "fine", DAY, DAY + 240))
    for hour in range(1, 40):
        await history.tick(at(60 * hour))

    anomaly = await history.anomaly()
    assert (anomaly.subject, anomaly.status) == ("network", "resolved")
    assert at(DAY) < anomaly.last_seen_at < at(DAY + 180)


async def test_what_happened_during_one_restart_of_ours_is_no_lag(history: History):
    """All of a renewal's events are tried again minutes later, and nothing that came before tells of it."""
    await history.receive(*(delivery(f"held_{i}", 8 + i / 60, sent=400) for i in range(12)))
    await history.tick(at(60))

    assert await history.anomalies() == []


async def test_a_delay_of_hours_is_critical_and_one_anomaly(history: History):
    await history.receive(*every(2, "a", 1, 240, sent=4000))
    for hour in range(1, 5):
        await history.tick(at(60 * hour))

    anomaly = await history.anomaly()
    assert (anomaly.severity, anomaly.opened_at, anomaly.last_seen_at) == ("critical", at(60), at(240))


async def test_it_ends_when_events_come_in_time_again(history: History):
    await history.receive(*every(2, "a", 1, 60, sent=1200), *every(2, "b", 61, 400))
    await history.tick(at(400))
    await history.settle(as_of=at(400))

    anomaly = await history.anomaly()
    assert (anomaly.status, anomaly.resolution, anomaly.last_seen_at) == ("resolved", "automatic", at(60))


async def test_connected_accounts_come_through_an_endpoint_of_their_own(history: History):
    slow = every(2, "a", 1, 60, sent=1200)
    await history.receive(
        *every(2, "own", 2, 60), *(delivery(f"c_{i}", 2 * i + 1, sent=1200, account=f"acct_{i % 2}") for i, _ in enumerate(slow))
    )
    await history.tick(at(60))

    assert (await history.anomaly()).subject == "stripe connect"


@pytest.mark.parametrize(
    ("thresholds", "expected"),
    [
        (WebhookLag(), 1),
        (WebhookLag(min_events=20), 0),
        (WebhookLag(window_hours=3, min_events=12), 1),
        (WebhookLag(stripe_median_seconds=3700, stripe_p90_seconds=3700), 0),
    ],
)
async def test_thresholds_count(history: History, thresholds: WebhookLag, expected: int):
    history.thresholds = {"webhook_lag": thresholds}
    await history.receive(*every(10, "a", 61, 180, sent=3600, travelled=1), *every(10, "b", 1, 60, sent=3600))
    await history.tick(at(180))

    assert len(await history.anomalies()) == expected
