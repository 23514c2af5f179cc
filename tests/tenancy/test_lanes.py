"""Lanes: a tenant keeps to one connection, which one caller has at a time, and which is replaced when it is lost or has served enough."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from billingwatch.errors import DatabaseUnavailable
from billingwatch.postgres import connections
from billingwatch.settings import Settings
from billingwatch.tenancy import lanes as lanes_module
from billingwatch.tenancy.lanes import Lane, Lanes, answer_within, control_plane, lane_number, make_lanes

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


async def backend(lane: Lane) -> int:
    async with lane.hold() as connection:
        return connection.get_server_pid()


async def test_a_tenant_always_runs_on_the_same_lane(database):
    lanes = Lanes(lambda number: Lane(database, f"lane {number}"), 3)

    chosen = {tenant_id: {lanes.of(tenant_id).name for _ in range(5)} for tenant_id in range(1, 10)}

    assert all(len(names) == 1 for names in chosen.values())
    assert {tenant_id: lanes.lanes[lane_number(tenant_id, 3)] for tenant_id in chosen} == {i: lanes.of(i) for i in chosen}
    assert set.union(*chosen.values()) == {"lane 0", "lane 1", "lane 2"}


async def test_a_lane_serves_one_caller_at_a_time(open_lane):
    lane = open_lane()
    inside: list[int] = []
    most: list[int] = []

    async def use(number: int) -> None:
        async with lane.hold() as connection:
            inside.append(number)
            await connection.execute("SELECT pg_sleep(0.001)")
            most.append(len(inside))
            inside.remove(number)

    await asyncio.gather(*(use(number) for number in range(10)))

    assert most == [1] * 10
    assert lane.waiting == 0


async def test_a_lane_counts_those_who_wait_and_who_hold(open_lane):
    lane = open_lane()

    async with lane.hold():
        other = asyncio.create_task(backend(lane))
        await asyncio.sleep(0)
        waiting = lane.waiting
    await other

    assert waiting == 2
    assert lane.waiting == 0


async def test_a_lane_opens_its_connection_with_the_first_use_and_says_who_it_is(open_lane):
    lane = open_lane("ingest 3", statement_timeout=7)
    before = lane.connected

    async with lane.hold() as connection:
        told = await connection.fetchrow(
            "SELECT current_setting('application_name') AS name, current_setting('statement_timeout') AS timeout,"
            " current_setting('search_path') AS path, current_setting('TimeZone') AS zone"
        )

    assert not before
    assert lane.connected
    assert tuple(told) == ("billingwatch ingest 3", "7s", "pg_catalog", "UTC")


@pytest.mark.schema_isolation
async def test_a_lanes_connection_is_replaced_once_it_has_served_more_distinct_tenants_than_it_may(open_lane, provision_tenant):
    lane = open_lane(tenants_limit=2)
    tenants = [(await provision_tenant(name))[0] for name in ("one", "two", "three")]
    backends: list[int] = []

    for tenant in (tenants[0], tenants[1], tenants[0], tenants[1], tenants[2], tenants[0]):
        async with lane.scope(tenant) as scoped:
            backends.append(scoped.get_server_pid())

    assert len(set(backends[:5])) == 1
    assert backends[5] != backends[0]
    assert lane.recycled == 1
    assert lane.schemas_touched == 1
    assert lane.generation == 2


async def test_a_lane_that_lost_its_connection_says_so_once_and_opens_another(open_lane, control, tenant):
    lane = open_lane()
    first = await backend(lane)

    with pytest.raises(DatabaseUnavailable):
        async with lane.scope(tenant) as scoped:
            await control.execute("SELECT pg_terminate_backend($1)", first)
            await scoped.execute("SELECT pg_sleep(1)")
    second = await backend(lane)

    assert second != first
    assert lane.generation == 2
    assert lane.waiting == 0


async def test_a_lane_whose_connection_was_lost_while_nobody_used_it_opens_another(open_lane, control):
    lane = open_lane()
    first = await backend(lane)
    await control.execute("SELECT pg_terminate_backend($1)", first)
    async with asyncio.timeout(5):
        while lane.connected:
            await asyncio.sleep(0.01)

    second = await backend(lane)

    assert second != first


async def test_an_error_of_the_callers_own_passes_through_and_keeps_the_connection(open_lane, tenant):
    lane = open_lane()
    first = await backend(lane)

    with pytest.raises(asyncpg.DivisionByZeroError):
        async with lane.scope(tenant) as scoped:
            await scoped.execute("SELECT 1 / 0")
    with pytest.raises(KeyError):
        async with lane.hold():
            raise KeyError

    assert await backend(lane) == first


async def test_a_cancelled_waiter_leaves_the_lane_to_the_others(open_lane):
    lane = open_lane()

    async with lane.hold():
        waiters = [asyncio.create_task(backend(lane)) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[0].cancel()
    done = await asyncio.gather(*waiters, return_exceptions=True)

    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1] == done[2] == await backend(lane)
    assert lane.waiting == 0


async def test_a_transaction_that_somebody_left_open_does_not_swallow_the_next_callers_work(open_lane, connect, tenant):
    lane = open_lane()
    async with lane.hold() as connection:
        await connection.execute("BEGIN")

    async with lane.hold() as connection:
        await connection.execute("INSERT INTO control.due_visits (tenant_id, kind, due_at) VALUES ($1, 'settle', now())", tenant.tenant_id)

    assert await (await connect()).fetchval("SELECT count(*) FROM control.due_visits") == 1


async def test_callers_of_a_database_that_is_away_fail_at_once_after_the_first(monkeypatch):
    lane = Lane(NOWHERE, "tests")
    attempts: list[str] = []
    connect = lanes_module.open_connection

    async def count(dsn: str, name: str, **timeouts: float) -> asyncpg.Connection:
        attempts.append(name)
        return await connect(dsn, name, **timeouts)

    monkeypatch.setattr(lanes_module, "open_connection", count)
    done = await asyncio.gather(*(backend(lane) for _ in range(20)), return_exceptions=True)
    monkeypatch.setattr(lanes_module, "RECONNECT_AFTER", 0)
    with pytest.raises(DatabaseUnavailable):
        await backend(lane)

    assert {type(error) for error in done} == {DatabaseUnavailable}
    assert len(attempts) == 2


async def test_a_closed_lane_serves_nobody_and_closing_waits_for_who_holds_it(open_lane):
    lane = open_lane()

    async with lane.hold() as connection:
        closing = asyncio.create_task(lane.close())
        await asyncio.sleep(0)
        answer = await connection.fetchval("SELECT 42")
    await closing

    assert answer == 42
    assert connection.is_closed()
    with pytest.raises(DatabaseUnavailable, match="shutting down"):
        await backend(lane)


async def test_lanes_close_together(database):
    lanes = Lanes(lambda number: Lane(database, f"lane {number}"), 2)
    await asyncio.gather(*(backend(lane) for lane in lanes.lanes))

    await lanes.close()

    assert not any(lane.connected for lane in lanes.lanes)


async def test_lanes_are_bounded_as_the_settings_say(settings: Settings, database):
    lanes = make_lanes(settings, database, "work", 2)

    async with control_plane(lanes.lanes[1]) as connection:
        name = await connection.fetchval("SELECT current_setting('application_name')")
        timeout = await connection.fetchval("SELECT current_setting('statement_timeout')")
    await lanes.close()

    assert (name, timeout) == ("billingwatch work 1", f"{settings.statement_timeout}s")


@pytest.fixture
def hasty(monkeypatch):
    """Leaving a lane is bounded by a tenth of a second; the statement timeout alone would be 35 s."""
    monkeypatch.setattr(connections, "LEAVE_SECONDS", 0.1)
    monkeypatch.setattr(lanes_module, "CLOSE_SECONDS", 0.1)


@pytest.fixture
async def lane_on_road(road) -> AsyncIterator[Lane]:
    lane = Lane(road.dsn, "tests")
    yield lane
    road.thaw()
    await lane.close()


async def in_scope(lane: Lane, tenant) -> None:
    async with lane.scope(tenant) as connection:
        await connection.fetchval("SELECT 1")


async def in_control_plane(lane: Lane, tenant) -> None:
    async with control_plane(lane) as connection:
        await connection.fetchval("SELECT 1")


@pytest.mark.parametrize("work", [in_scope, in_control_plane])
async def test_frozen_server_holds_up_no_caller_with_a_limit(lane_on_road, road, tenant, hasty, work):
    await work(lane_on_road, tenant)

    road.freeze()
    async with asyncio.timeout(20):
        with pytest.raises(DatabaseUnavailable, match="did not answer within"):
            async with answer_within(0.1):
                await work(lane_on_road, tenant)
    left = lane_on_road.connected
    road.thaw()
    await work(lane_on_road, tenant)

    assert not left
    assert lane_on_road.connected


@pytest.mark.parametrize("work", [in_scope, in_control_plane])
async def test_frozen_server_holds_up_no_cancelled_caller(lane_on_road, road, tenant, hasty, work):
    await work(lane_on_road, tenant)

    road.freeze()
    holder = asyncio.create_task(work(lane_on_road, tenant))
    while not lane_on_road.waiting:
        await asyncio.sleep(0)
    holder.cancel()
    async with asyncio.timeout(20):
        await asyncio.gather(holder, return_exceptions=True)

    assert holder.cancelled()
    assert lane_on_road.waiting == 0


async def test_closing_a_lane_on_a_frozen_server_ends(lane_on_road, road, tenant, hasty):
    await in_scope(lane_on_road, tenant)

    road.freeze()
    holder = asyncio.create_task(in_scope(lane_on_road, tenant))
    while not lane_on_road.waiting:
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await lane_on_road.close()
        [error] = await asyncio.gather(holder, return_exceptions=True)

    assert isinstance(error, DatabaseUnavailable)
    assert not lane_on_road.connected


async def test_error_of_the_blocks_own_timeout_passes_through():
    with pytest.raises(TimeoutError):
        async with answer_within():
            raise TimeoutError


async def test_cancelled_statement_leaves_a_usable_connection(open_lane):
    lane = open_lane()
    async with control_plane(lane) as connection:
        before = await connection.fetchval("SELECT pg_backend_pid()")

    with pytest.raises(DatabaseUnavailable):
        async with answer_within(0.1), control_plane(lane) as connection:
            await connection.execute("BEGIN; SELECT pg_sleep(60)")

    async with control_plane(lane) as connection:
        assert not connection.is_in_transaction()
        assert await connection.fetchval("SELECT pg_backend_pid()") == before
