"""One history gives one set of anomalies: replayed in one go, event by event, late and shuffled, or as it happens with time being judged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import msgspec
import pytest

from billingwatch.detection.store import Anomaly, AnomalyFilter, list_anomalies
from billingwatch.ingest.record import record_events
from billingwatch.replay import Replay
from billingwatch.simulate.incidents.registry import INCIDENTS
from billingwatch.simulate.profiles import PROFILES
from billingwatch.simulate.stream import body, simulate
from billingwatch.tenancy.lanes import Lane
from billingwatch.tenancy.tenants import Tenant
from billingwatch.visit import visit

START = datetime(2026, 1, 5, tzinfo=UTC)
DAYS = 12
NOW = START + timedelta(days=40)
LATENESS = 3 * 86_400  # seconds
BOOKKEEPING = ("anomaly_id", "detected_at", "updated_at", "historical")

Feed = Callable[[Tenant], Awaitable[None]]


@pytest.fixture(scope="module")
def history() -> list[dict[str, Any]]:
    profile = msgspec.structs.replace(PROFILES["shop"], customers=60, purchases_per_day=14, disputes=0.02, refunds=0.1, subscribed=0.5)
    events, labels = simulate(seed=11, start=START, days=DAYS, profile=profile, incidents=sorted(INCIDENTS))
    assert len(labels) >= len(INCIDENTS) - 2  # a stream may end before an incident does
    return events


@pytest.fixture
def anomalies(open_lane):
    async def anomalies(tenant: Tenant) -> list[dict[str, Any]]:
        async with open_lane("read").scope(tenant, readonly=True) as connection:
            found: Sequence[Anomaly] = await list_anomalies(connection, AnomalyFilter(), limit=10_000)
        said = [{name: value for name, value in msgspec.structs.asdict(one).items() if name not in BOOKKEEPING} for one in found]
        for one in said:
            # A row that says nothing new still takes its newest event's id.
            one["evidence"] = {name: value for name, value in one["evidence"].items() if name != "event_ids"}
        return sorted(said, key=lambda one: (one["detector"], one["fingerprint"]))

    return anomalies


@pytest.fixture
def record(control, make_delivery):
    async def record(tenant: Tenant, events: Sequence[dict[str, Any]]) -> None:
        for start in range(0, len(events), 200):
            deliveries = [make_delivery(tenant, body=body(event).decode()) for event in events[start : start + 200]]
            # Some detectors judge deliveries, and these arrive differently: nobody signed them.
            await record_events(control, [msgspec.structs.replace(delivery, signed_at=None) for delivery in deliveries])

    return record


async def evaluate(lane: Lane, tenant: Tenant) -> None:
    """Let the detectors of time evaluate all slices up to NOW."""
    while (await visit(lane, tenant, as_of=NOW, judge_now=True)).more:
        pass


async def test_a_history_gives_the_same_anomalies_however_it_arrives(database, provision_tenant, open_lane, record, anomalies, history):
    lane = open_lane("work")

    async def in_one_go(tenant: Tenant) -> None:
        await Replay(database, tenant, lambda: NOW).run([body(event) for event in history])

    async def event_by_event(tenant: Tenant) -> None:
        await record(tenant, history)
        while (await visit(lane, tenant, as_of=NOW, limit=1)).more:
            pass
        await evaluate(lane, tenant)

    async def late_and_shuffled(tenant: Tenant) -> None:
        random = Random(5)
        arriving = sorted(history, key=lambda event: event["created"] + random.choice((0, 0, 0, random.uniform(0, LATENESS))))
        await record(tenant, arriving)
        while (await visit(lane, tenant, as_of=NOW, limit=random.randrange(1, 120), judge_now=random.random() < 0.2)).more:
            pass
        await evaluate(lane, tenant)

    async def as_it_happens(tenant: Tenant) -> None:
        waiting = list(history)
        for hours in range(0, DAYS * 24 + 1, 6):
            now = START + timedelta(hours=hours)
            due = [event for event in waiting if event["created"] < now.timestamp()]
            waiting = waiting[len(due) :]
            await record(tenant, due)
            while (await visit(lane, tenant, as_of=now, judge_now=True)).more:
                pass
        await evaluate(lane, tenant)

    feeds: dict[str, Feed] = {
        "in-one-go": in_one_go,
        "event-by-event": event_by_event,
        "late": late_and_shuffled,
        "as-it-happens": as_it_happens,
    }
    found = {}
    for name, feed in feeds.items():
        tenant, _ = await provision_tenant(name)
        await feed(tenant)
        found[name] = await anomalies(tenant)

    first = found["in-one-go"]
    assert len({one["detector"] for one in first}) >= 4
    for name, others in found.items():
        assert [one["fingerprint"] for one in others] == [one["fingerprint"] for one in first], name
        assert others == first, name
