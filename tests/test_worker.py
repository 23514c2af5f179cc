"""The processor: every pending event is handled once, by whoever owns its lane, and trouble with one tenant is its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from billingwatch import worker as worker_module
from billingwatch.errors import SchemaOutdated, SecretKeyUnusable
from billingwatch.ingest.record import record_events
from billingwatch.settings import Settings
from billingwatch.tenancy.lanes import Lane, make_lanes
from billingwatch.tenancy.lifecycle import pause_tenant, resume_tenant
from billingwatch.tenancy.registry import Registry
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.tenants import Tenant
from billingwatch.visit import Visited, visit
from billingwatch.worker import Processor, processing


def customer_event(event_id: str) -> str:
    customer = {"id": event_id.replace("evt", "cus"), "object": "customer", "created": 1_772_000_000, "currency": "usd"}
    event = {
        "id": event_id,
        "object": "event",
        "type": "customer.created",
        "created": 1_772_000_000,
        "livemode": True,
        "data": {"object": customer},
    }
    return json.dumps(event)


async def until(found: Callable[[], Awaitable[object]], *, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not await found():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(worker_module, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(worker_module, "BALANCE_SECONDS", 0.1)


@pytest.fixture
def record(control, make_delivery):
    async def record(tenant: Tenant, *event_ids: str) -> None:
        await record_events(control, [make_delivery(tenant, body=customer_event(event_id)) for event_id in event_ids])

    return record


@pytest.fixture
def pending(control):
    async def pending() -> int:
        return await control.fetchval("SELECT count(*) FROM control.pending_events")

    return pending


@pytest.fixture
def customers(connect):
    async def customers(tenant: Tenant) -> list[str]:
        async with tenant_scope(await connect(), tenant) as scoped:
            return [row["customer_id"] for row in await scoped.fetch("SELECT customer_id FROM customers ORDER BY customer_id")]

    return customers


@pytest.fixture
async def make_processor(settings, database, seal, now) -> AsyncIterator[Callable[..., Processor]]:
    """Processors as several processes would run them."""
    running: list[tuple[Processor, Registry, Lane]] = []

    def make(*, lanes: int = 2) -> Processor:
        control = Lane(database, "control")
        registry = Registry(control, seal, database)
        processor = Processor(control, make_lanes(settings, database, "work", lanes), registry, lambda: now)
        processor.start()
        running.append((processor, registry, control))
        return processor

    yield make
    for processor, registry, control in running:
        await processor.close()
        await registry.close()
        await control.close()


def owned(processor: Processor) -> list[int]:
    return [lane.number for lane in processor._lanes if lane.owned]


async def test_recorded_events_are_processed_without_being_called(make_processor, provision_tenant, record, pending, customers):
    tenants = [(await provision_tenant(name))[0] for name in ("one", "two", "three")]
    for tenant in tenants:
        await record(tenant, "evt_1", "evt_2")

    make_processor()
    await until(lambda: none(pending))

    for tenant in tenants:
        assert await customers(tenant) == ["cus_1", "cus_2"]


async def none(pending: Callable[[], Awaitable[int]]) -> bool:
    return await pending() == 0


async def test_a_called_tenant_is_visited_before_the_next_poll(make_processor, tenant, record, pending, monkeypatch):
    processor = make_processor()
    await until(lambda: is_(lambda: len(owned(processor)) == 2))
    monkeypatch.setattr(worker_module, "POLL_SECONDS", 60)
    await asyncio.sleep(0.1)
    await record(tenant, "evt_1")

    processor.call({tenant.tenant_id})

    await until(lambda: none(pending), seconds=5)


async def is_(found: Callable[[], object]) -> bool:
    return bool(found())


async def test_more_events_than_a_visit_takes_are_taken_in_turns(make_processor, provision_tenant, record, pending, monkeypatch):
    hot, cool = (await provision_tenant("hot"))[0], (await provision_tenant("cool"))[0]
    await record(hot, *(f"evt_{number}" for number in range(40)))
    await record(cool, *(f"evt_{number}" for number in range(8)))
    turns: list[str] = []

    async def small_visit(lane, tenant, **options) -> Visited:
        turns.append(tenant.name)
        return await visit(lane, tenant, limit=4, **options)

    monkeypatch.setattr(worker_module, "visit", small_visit)
    make_processor(lanes=1)
    await until(lambda: none(pending))

    # The cool one waits for one visit of the hot one at a time, not for all ten.
    first = turns.index("cool")
    assert first <= 1
    assert turns[first : first + 4].count("cool") == 2


async def test_two_processors_share_the_lanes_and_one_takes_over_when_the_other_ends(make_processor, provision_tenant, record, pending):
    first = make_processor()
    await until(lambda: is_(lambda: owned(first) == [0, 1]))

    second = make_processor()
    await until(lambda: is_(lambda: len(owned(first)) == len(owned(second)) == 1))
    shared = sorted(owned(first) + owned(second))
    await first.close()
    await first._control.close()
    await until(lambda: is_(lambda: owned(second) == [0, 1]))

    assert shared == [0, 1]
    for name in ("one", "two"):
        await record((await provision_tenant(name))[0], "evt_1")
    await until(lambda: none(pending))


async def test_lanes_of_a_frozen_processor_are_taken_over(make_processor, provision_tenant, record, pending, monkeypatch):
    frozen = make_processor()
    second = make_processor()
    await until(lambda: is_(lambda: len(owned(frozen)) == len(owned(second)) == 1))
    monkeypatch.setattr(worker_module, "FROZEN_SECONDS", 1.0)

    with capture_logs() as logs:
        await frozen._poller.stop()  # Its sessions stay, as after SIGSTOP.
        await until(lambda: is_(lambda: owned(second) == [0, 1]))

    for name in ("one", "two"):
        await record((await provision_tenant(name))[0], "evt_1")
    await until(lambda: none(pending))
    assert [line["lanes"] for line in logs if line["event"] == "worker.frozen_processor_ended"] == [1]


async def test_more_processors_than_lanes_leave_some_without_and_none_contended(make_processor):
    processors = [make_processor() for _ in range(3)]

    await until(lambda: is_(lambda: sorted(lane for processor in processors for lane in owned(processor)) == [0, 1]))
    await asyncio.sleep(0.3)

    assert sorted(len(owned(processor)) for processor in processors) == [0, 1, 1]


async def test_killed_connections_cost_no_event_and_double_none(make_processor, provision_tenant, record, pending, customers, control):
    tenants = [(await provision_tenant(name))[0] for name in ("one", "two")]
    with capture_logs():
        make_processor()
        for number in range(6):
            for tenant in tenants:
                await record(tenant, *(f"evt_{number}_{each}" for each in range(5)))
            await control.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name ~ '^billingwatch (work|control)'"
            )
            await asyncio.sleep(0.05)
        await until(lambda: none(pending), seconds=20)

    expected = sorted(f"cus_{number}_{each}" for number in range(6) for each in range(5))
    for tenant in tenants:
        assert await customers(tenant) == expected
    assert await control.fetchval("SELECT count(*) FROM control.dead_letters") == 0


@pytest.mark.schema_isolation
async def test_a_tenant_whose_visits_fail_waits_and_the_others_go_on(
    make_processor, provision_tenant, record, pending, customers, control, monkeypatch
):
    monkeypatch.setattr(worker_module, "BACKOFF_SECONDS", (0.2,))
    broken, whole = (await provision_tenant("broken"))[0], (await provision_tenant("whole"))[0]
    await control.execute(f"ALTER TABLE {broken.schema_name}.customers RENAME TO hidden")
    await record(broken, "evt_1")
    visits: list[str] = []

    async def noted_visit(lane, tenant, **options) -> Visited:
        visits.append(tenant.name)
        return await visit(lane, tenant, **options)

    monkeypatch.setattr(worker_module, "visit", noted_visit)
    with capture_logs() as logs:
        began = time.monotonic()
        make_processor(lanes=1)
        await until(lambda: is_(lambda: "broken" in visits))
        await record(whole, "evt_1", "evt_2")
        await until(lambda: has(customers, whole, ["cus_1", "cus_2"]))
        await asyncio.sleep(0.3)
        failed, pauses = visits.count("broken"), (time.monotonic() - began) / 0.2
        await control.execute(f"ALTER TABLE {broken.schema_name}.hidden RENAME TO customers")
        await until(lambda: none(pending))

    assert failed <= pauses + 1, "it is tried again after a pause, not with every poll"
    assert await customers(broken) == ["cus_1"]
    assert {entry["tenant_id"] for entry in logs if entry["event"] == "worker.visit_failed"} == {broken.tenant_id}


async def has(customers, tenant: Tenant, expected: list[str]) -> bool:
    return await customers(tenant) == expected


@pytest.mark.schema_isolation
@pytest.mark.parametrize("table", ["customers", "states", "anomalies"])
async def test_locked_table_of_a_tenant_delays_no_other_on_its_lane(
    make_processor, provision_tenant, record, pending, customers, connect, monkeypatch, table
):
    monkeypatch.setattr(worker_module, "LOCKED_SECONDS", 0.2)
    locked, other = [(await provision_tenant(name))[0] for name in ("locked", "other")]
    for tenant in (locked, other):
        await record(tenant, "evt_1")
    holder = await connect()

    with capture_logs() as logs:
        async with tenant_scope(holder, locked) as scoped:
            await scoped.execute(f"LOCK TABLE {table}")
            make_processor(lanes=1)
            await until(lambda: one(pending))
            assert await customers(other) == ["cus_1"]
        await until(lambda: none(pending))

    assert await customers(locked) == ["cus_1"]
    assert [line["event"] for line in logs if "locked" in line["event"]] == ["worker.tenant_locked", "worker.tenant_unlocked"]


async def one(pending: Callable[[], Awaitable[int]]) -> bool:
    return await pending() == 1


async def test_what_is_pending_for_a_tenant_that_is_gone_is_forgotten(make_processor, tenant, record, pending, control):
    await record(tenant, "evt_1")
    await control.execute(f"DROP SCHEMA {tenant.schema_name} CASCADE; DELETE FROM control.tenants")

    make_processor()

    await until(lambda: none(pending))


async def test_a_due_tenant_is_visited_although_no_event_came(make_processor, tenant, control, now):
    await control.execute("INSERT INTO control.due_visits (tenant_id, kind, due_at) VALUES ($1, 'settle', $2)", tenant.tenant_id, now)

    make_processor()

    await until(lambda: settled(control))


async def settled(control) -> bool:
    return await control.fetchval("SELECT count(*) FROM control.due_visits") == 0


async def test_closing_finishes_the_visit_under_way_and_leaves_the_rest_pending(
    make_processor, connect, provision_tenant, record, customers, pending, monkeypatch
):
    first, second = (await provision_tenant("first"))[0], (await provision_tenant("second"))[0]
    await record(first, "evt_1")
    await record(second, "evt_1")
    begun = asyncio.Event()

    async def noted_visit(lane, tenant, **options) -> Visited:
        begun.set()
        return await visit(lane, tenant, **options)

    monkeypatch.setattr(worker_module, "visit", noted_visit)
    async with tenant_scope(await connect(), first) as scoped:
        await scoped.execute("LOCK TABLE customers")
        processor = make_processor(lanes=1)
        await begun.wait()
        closing = asyncio.create_task(processor.close())
        await asyncio.sleep(0.05)
        waits = not closing.done()
    await closing

    assert waits
    assert await customers(first) == ["cus_1"]
    assert await customers(second) == []
    assert await pending() == 1


async def test_processing_runs_until_its_block_ends(settings, database, tenant, record, pending, control, now):
    await record(tenant, "evt_1")

    async with processing(settings, database, lambda: now):
        await until(lambda: none(pending))

    ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'billingwatch %'"
    await until(lambda: no_connection(control, ours))


async def no_connection(control, query: str) -> bool:
    return await control.fetchval(query) == 0


async def test_processing_refuses_a_control_plane_of_another_release(settings, database, control, now):
    await control.execute("UPDATE control.alembic_version SET version_num = '9999'")

    with pytest.raises(SchemaOutdated):
        async with processing(settings, database, lambda: now):
            pytest.fail("it runs")


async def test_processing_without_the_key_file_is_refused_and_makes_none(tmp_path, settings, database, tenant, now):
    without_key = Settings(data_dir=tmp_path, isolation=settings.isolation)

    with pytest.raises(SecretKeyUnusable, match="is missing"):
        async with processing(without_key, database, lambda: now):
            pass

    assert list(tmp_path.iterdir()) == []


async def test_paused_tenant_is_not_visited_until_resumed(make_processor, provision_tenant, record, pending, customers, control, now):
    paused, active = (await provision_tenant("paused"))[0], (await provision_tenant("active"))[0]
    await pause_tenant(control, "paused", as_of=now)
    processor = make_processor()
    processor._registry.start()
    await record(paused, "evt_1")
    await record(active, "evt_2")
    processor.call([paused.tenant_id, active.tenant_id])
    await until(lambda: processed(customers, active, ["cus_2"]))
    waiting = await pending()

    await resume_tenant(control, "paused", as_of=now)
    await until(lambda: none(pending))

    assert waiting == 1
    assert await customers(paused) == ["cus_1"]


async def processed(customers, tenant: Tenant, wanted: list[str]) -> bool:
    return await customers(tenant) == wanted


async def test_running_processor_stops_when_its_tenant_is_paused(
    make_processor, provision_tenant, record, pending, customers, control, now
):
    tenant, _ = await provision_tenant()
    processor = make_processor()
    processor._registry.start()
    await record(tenant, "evt_1")
    await until(lambda: none(pending))
    await pause_tenant(control, tenant.name, as_of=now)
    await until(lambda: is_paused(processor, tenant))

    await record(tenant, "evt_2")
    processor.call([tenant.tenant_id])
    for other in ("other", "another"):
        fresh, _ = await provision_tenant(other)
        await record(fresh, f"evt_of_{other}")
        await until(lambda fresh=fresh, other=other: processed(customers, fresh, [f"cus_of_{other}"]))

    assert await pending() == 1
    assert await customers(tenant) == ["cus_1"]


async def is_paused(processor: Processor, tenant: Tenant) -> bool:
    return (await processor._registry.by_tenant_id(tenant.tenant_id)).status == "paused"
