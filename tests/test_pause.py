"""A pause delays the processing of a tenant, and changes nothing of what is found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import pytest

from billingwatch.detection.store import AnomalyFilter, list_anomalies
from billingwatch.errors import RemovalUnfinished, TenantPaused
from billingwatch.ingest.recorder import record_events
from billingwatch.replay import Replay
from billingwatch.simulate.incidents.registry import INCIDENTS
from billingwatch.simulate.profiles import PROFILES
from billingwatch.simulate.stream import simulate
from billingwatch.tenancy.lifecycle import pause_tenant, resume_tenant
from billingwatch.tenancy.registry import load_tenant
from billingwatch.visit import sql as visit_sql
from billingwatch.visit import visit

START = datetime(2026, 1, 5, tzinfo=UTC)
DAY = timedelta(days=1)
END = START + 30 * DAY
STEP = timedelta(hours=6)  # between visits
PAUSED_AT = START + 21 * DAY
RESUMED_AT = START + 27 * DAY  # longer after than an event may be late before its anomaly is historical
SILENT = (START + 24 * DAY, START + 25 * DAY)
LATE = (START + 23 * DAY, START + 23.25 * DAY)
BOOKKEEPING = ("anomaly_id", "detected_at", "updated_at")


class Arrival(NamedTuple):
    received_at: datetime
    event: dict[str, Any]


def arrivals() -> list[Arrival]:
    """A month of events with every incident, a day without events and six hours in which Stripe was an hour late."""
    profile = msgspec.structs.replace(PROFILES["shop"], customers=40, purchases_per_day=8, disputes=0.02, refunds=0.1, subscribed=0.5)
    events, _ = simulate(seed=11, start=START + 15 * DAY, days=14, profile=profile, incidents=sorted(INCIDENTS))
    live = [Arrival(datetime.fromtimestamp(event["created"], UTC) + timedelta(seconds=2), event) for event in events]
    return sorted((one for one in [*live, *pings()] if not SILENT[0] <= one.received_at < SILENT[1]), key=lambda one: one.received_at)


def pings() -> Iterator[Arrival]:
    for number in range(30 * 24 * 3):
        received_at = START + number * timedelta(minutes=20)
        late = LATE[0] <= received_at < LATE[1]
        created = int((received_at - timedelta(hours=late, seconds=1)).timestamp())
        yield Arrival(
            received_at, {"id": f"evt_ping_{number}", "object": "event", "type": "ping", "created": created, "livemode": True, "data": {}}
        )


@pytest.fixture
def live(control, seal, make_delivery, open_lane):
    """Deliver a history as it happens, with a visit every `STEP` unless the tenant is paused; return the anomalies."""

    async def live(name: str, history: Sequence[Arrival], *, pause: bool) -> list[dict[str, Any]]:
        lane, waiting, now = open_lane(f"work {name}"), list(history), START
        tenant = await load_tenant(control, seal, name)
        while now <= END + STEP:
            if pause and now == PAUSED_AT:
                await pause_tenant(control, name, as_of=now)
            if pause and now == RESUMED_AT:
                await resume_tenant(control, name, as_of=now)
            due = [one for one in waiting if one.received_at <= now]
            waiting = waiting[len(due) :]
            await record_events(control, [make_delivery(tenant, body=json.dumps(one.event), received_at=one.received_at) for one in due])
            tenant = await load_tenant(control, seal, name)
            while tenant.status == "active" and (await visit(lane, tenant, as_of=now)).more:
                pass
            now += STEP
        async with open_lane("read").scope(tenant, readonly=True) as connection:
            found = await list_anomalies(connection, AnomalyFilter(), limit=10_000)
        said = [{name: value for name, value in msgspec.structs.asdict(one).items() if name not in BOOKKEEPING} for one in found]
        for one in said:
            # A row that says nothing new still takes its newest event's id.
            one["evidence"] = {name: value for name, value in one["evidence"].items() if name != "event_ids"}
        return sorted(said, key=lambda one: (one["detector"], one["fingerprint"]))

    return live


async def test_pause_in_the_middle_changes_no_anomaly(provision_tenant, live):
    history = arrivals()
    await provision_tenant("through")
    await provision_tenant("paused")

    through = await live("through", history, pause=False)
    paused = await live("paused", history, pause=True)

    during = {one["detector"] for one in through if PAUSED_AT <= one["opened_at"] < RESUMED_AT - 3 * DAY}
    assert {"webhook_lag", "card_testing"} <= during
    assert {"webhook_silence"} <= {one["detector"] for one in through}
    assert not all(one["historical"] for one in through)
    assert [(one["detector"], one["fingerprint"]) for one in paused] == [(one["detector"], one["fingerprint"]) for one in through]
    assert paused == through


async def test_polls_skip_paused_tenants_and_find_removed_ones(control, provision_tenant, make_delivery, now):
    tenants = {name: (await provision_tenant(name))[0] for name in ("active", "paused", "removing", "gone")}
    for tenant in tenants.values():
        await record_events(control, [make_delivery(tenant)])
        await control.execute(
            "INSERT INTO control.due_visits (tenant_id, kind, due_at) VALUES ($1, 'evaluate', $2)", tenant.tenant_id, now - DAY
        )
    await pause_tenant(control, "paused", as_of=now)
    await control.execute("UPDATE control.tenants SET status = 'removing' WHERE name = 'removing'")
    await control.execute("DELETE FROM control.tenants WHERE name = 'gone'")

    before = await work(control, now)
    await resume_tenant(control, "paused", as_of=now)
    after = await work(control, now)

    assert before == {tenants["active"].tenant_id, tenants["gone"].tenant_id}
    assert after == before | {tenants["paused"].tenant_id}


async def work(control, now: datetime) -> set[int]:
    return {row["tenant_id"] for row in await control.fetch(visit_sql["tenants_with_work"], now, now + 365 * DAY)}


async def test_replay_into_paused_tenant_is_refused(control, seal, database, tenant, now):
    await pause_tenant(control, tenant.name, as_of=now)
    paused = await load_tenant(control, seal, tenant.name)

    with pytest.raises(TenantPaused) as refused:
        await Replay(database, paused, lambda: now).run([json.dumps(next(pings()).event).encode()])

    assert refused.value.hint == f"run `billingwatch tenants resume {tenant.name}`"
    assert await control.fetchval("SELECT count(*) FROM control.pending_events") == 0


async def test_replay_into_tenant_under_removal_is_refused(control, seal, database, tenant, now):
    await control.execute("UPDATE control.tenants SET status = 'removing'")

    with pytest.raises(RemovalUnfinished):
        await Replay(database, await load_tenant(control, seal, tenant.name), lambda: now).run([])


async def test_pause_ends_a_running_replay(control, database, tenant, now):
    events = [json.dumps(one.event).encode() for one in pings()]
    replay = Replay(database, tenant, lambda: now)
    replayed = asyncio.Event()
    running = asyncio.create_task(replay.run(events, lambda _: replayed.set()))

    await replayed.wait()
    await pause_tenant(control, tenant.name, as_of=now)

    with pytest.raises(TenantPaused):
        await running
    assert replay.progress.processed < len(events)
