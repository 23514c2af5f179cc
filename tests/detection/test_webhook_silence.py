from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from billingwatch.detection.detectors.webhook_silence import WebhookSilence

from .history import DAY, Delivery, History, at, delivery, replayed

WEEK = 7 * DAY


def every(minutes: float, start: float, end: float, name: str = "a", **fields: Any) -> Iterable[Delivery]:
    return [delivery(f"{name}_{start}_{i}", start + i * minutes, **fields) for i in range(int((end - start) / minutes))]


async def heard_until(history: History, end: float, *, minutes: float = 15, weeks: int = 4, **fields: Any) -> None:
    await history.receive(*every(minutes, end - weeks * WEEK, end, **fields))


async def test_a_silence_that_the_rhythm_does_not_explain_is_an_anomaly(history: History):
    await heard_until(history, 0)
    await history.tick(at(120))
    too_early = await history.anomalies()

    await history.tick(at(240))

    anomaly = await history.anomaly()
    assert too_early == []
    assert (anomaly.detector, anomaly.subject, anomaly.severity, anomaly.status) == ("webhook_silence", "webhook", "warning", "open")
    assert (anomaly.opened_at, anomaly.last_seen_at) == (at(180), at(240))
    assert anomaly.summary == (
        "No event from Stripe for 4 hours since 2026-03-02 11:45 UTC; usually 13 bursts of them arrive within 3.2 hours then"
    )
    assert anomaly.evidence["numbers"]["usual_hours_of_weeks_before"][:3] == [3.2, 3.2, 3.2]


async def test_the_next_event_ends_it(history: History):
    await heard_until(history, 0)
    await history.tick(at(300))
    await history.receive(delivery("back", 310))
    outcome = await history.tick(at(360))

    anomaly = await history.anomaly()
    assert [finding.anomaly_id for finding in outcome.resolved] == [anomaly.anomaly_id]
    assert (anomaly.status, anomaly.resolved_at, anomaly.last_seen_at) == ("resolved", at(310), at(300))


async def test_a_silence_of_weeks_stays_one_open_anomaly_until_an_event_ends_it(history: History):
    await heard_until(history, 0)
    for days in (1, 7, 8, 9, 20, 40):
        await history.tick(at(days * DAY))
    open_still = await history.anomaly()
    await history.receive(delivery("back", 40 * DAY + 10))
    await history.tick(at(40 * DAY + 60))

    assert (open_still.status, open_still.severity, open_still.last_seen_at) == ("open", "critical", at(40 * DAY))
    assert (await history.anomaly()).status == "resolved"


async def test_a_tenant_with_two_events_a_day_does_not_page_at_night_or_over_days(history: History):
    await heard_until(history, 0, minutes=12 * 60, weeks=6)
    await history.tick(at(5 * DAY))

    assert await history.anomalies() == []


async def test_nights_and_weekends_that_are_always_silent_are_none(history: History):
    """Ten hours on five days a week, an event every ten minutes."""
    work = [day for day in range(-35, 7) if (day % 7) < 5]
    for day in work:
        await history.receive(*every(10, day * DAY, day * DAY + 600, "w"))
    await history.tick(at(7 * DAY))

    assert await history.anomalies() == []


async def test_one_payment_makes_many_events_and_one_burst(history: History):
    """Six events at once, twice a day: sixty a day are no reason to miss them over half a day."""
    for start in range(-42, 0):
        for hour in (0, 5):
            await history.receive(*every(0.05, start * DAY + hour * 60, start * DAY + hour * 60 + 1.5))
    await history.tick(at(2 * DAY))

    assert await history.anomalies() == []


async def test_less_than_three_weeks_of_events_is_learning(history: History):
    await heard_until(history, 0, weeks=2)
    await history.tick(at(DAY))

    assert await history.anomalies() == []


async def test_the_first_silence_ever_is_seen(history: History):
    await heard_until(history, 0, weeks=3)
    await history.receive(delivery("very_first", -3 * WEEK - 60))
    await history.tick(at(DAY))

    assert len(await history.anomalies()) == 1


async def test_one_odd_week_does_not_hide_a_silence(history: History):
    await history.receive(*(each for each in every(15, -4 * WEEK - 60, 0) if not at(-3 * WEEK) <= each.received_at <= at(-2 * WEEK)))
    await history.tick(at(DAY))

    assert (await history.anomalies())[-1].opened_at == at(240)


async def test_half_of_the_weeks_being_busier_does_not_make_an_ordinary_week_silent(history: History):
    """A burst an hour is usual; in the three weeks before now there were four."""
    await history.receive(*every(60, -6 * WEEK - 60, 0), *every(15, -3 * WEEK, 0, "busy"))
    await history.tick(at(8 * 60))

    assert await history.anomalies() == []


async def test_reconciled_events_are_no_sign_of_life(history: History):
    await heard_until(history, 0)
    await history.receive(*(replayed(f"r_{i}", i * 10, ago=30) for i in range(24)))
    await history.tick(at(240))

    assert len(await history.anomalies()) == 1


async def test_a_replay_is_no_rhythm(history: History):
    await history.receive(*(replayed(f"r_{i}", -4 * WEEK + i, ago=DAY) for i in range(500)), *every(DAY, -4 * WEEK, 0))
    await history.tick(at(DAY))

    assert await history.anomalies() == []


async def test_a_tenant_with_events_of_the_wrong_mode_only_is_not_judged(history: History):
    await heard_until(history, 0, disposition="ignored")
    await history.tick(at(DAY))

    assert await history.anomalies() == []


async def test_events_of_the_wrong_mode_do_not_hide_a_silence(history: History):
    await heard_until(history, 0)
    await history.receive(*every(1, 1, DAY, "test", disposition="ignored"))
    await history.tick(at(DAY))

    assert (await history.anomaly()).opened_at == at(180)


async def test_two_silences_are_two_anomalies(history: History):
    await heard_until(history, 0)
    await history.receive(delivery("between", 400))
    await history.tick(at(800))

    assert [(anomaly.status, anomaly.opened_at) for anomaly in await history.anomalies()] == [("resolved", at(180)), ("open", at(600))]


@pytest.mark.parametrize(("thresholds", "opened"), [(WebhookSilence(min_bursts=6), 120), (WebhookSilence(min_hours=5), 300)])
async def test_thresholds_count(history: History, thresholds: WebhookSilence, opened: float):
    history.thresholds = {"webhook_silence": thresholds}
    await heard_until(history, 0)
    await history.tick(at(DAY))

    assert (await history.anomaly()).opened_at == at(opened)
