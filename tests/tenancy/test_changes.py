"""The feed of changes: no commit is missed, and no role can disturb it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from billingwatch.postgres.connections import ControlConnection
from billingwatch.tenancy import changes as changes_module
from billingwatch.tenancy.analysts import analyst_dsn, create_analyst, revoke_analyst
from billingwatch.tenancy.changes import ChangeFeed, announce_change
from billingwatch.tenancy.registry import Registry, _Key

Connect = Callable[[], Awaitable[asyncpg.Connection]]


class Recorded:
    """Collects what the feed asks to forget: a set of ids, or None for all."""

    def __init__(self) -> None:
        self.calls: list[set[int] | None] = []

    def forget(self, *tenant_ids: int) -> None:
        self.calls.append(set(tenant_ids) or None)


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture
async def feed(open_lane, recorded: Recorded) -> ChangeFeed:
    """A feed after its first poll, which forgets everything."""
    feed = ChangeFeed(open_lane("changes"), recorded.forget)
    await feed.poll()
    assert recorded.calls == [None]
    recorded.calls.clear()
    return feed


async def until(found: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not found():
            await asyncio.sleep(0.01)


async def test_several_changes_between_polls_cause_one_call(feed: ChangeFeed, recorded: Recorded, control: ControlConnection) -> None:
    for tenant_id in (1, 2, 2):
        await announce_change(control, tenant_id)

    await feed.poll()
    await feed.poll()

    assert recorded.calls == [{1, 2}]


async def test_change_of_every_tenant_forgets_all(feed: ChangeFeed, recorded: Recorded, control: ControlConnection) -> None:
    await announce_change(control, 1)
    await announce_change(control)

    await feed.poll()

    assert recorded.calls == [None]


async def test_change_committed_after_younger_ones_is_found(feed: ChangeFeed, recorded: Recorded, connect: Connect) -> None:
    early, late = ControlConnection(await connect()), ControlConnection(await connect())
    transaction = early.transaction()
    await transaction.start()
    await announce_change(early, 1)
    for _ in range(3):
        await announce_change(late, 2)
        await feed.poll()

    await transaction.commit()
    await feed.poll()
    await feed.poll()

    assert recorded.calls == [{2}, {2}, {2}, {1}]


async def test_rolled_back_change_is_not_reported(feed: ChangeFeed, recorded: Recorded, control: ControlConnection) -> None:
    transaction = control.transaction()
    await transaction.start()
    await announce_change(control, 1)
    await transaction.rollback()

    await feed.poll()

    assert recorded.calls == []


async def test_handled_changes_are_not_kept_once_the_horizon_passed(feed: ChangeFeed, control: ControlConnection) -> None:
    for tenant_id in range(20):
        await announce_change(control, tenant_id)
    await feed.poll()

    async with asyncio.timeout(60):  # a transaction of another test on this server holds the horizon back
        while feed._handled:
            await control.execute("SELECT pg_current_xact_id()")
            await feed.poll()
            await asyncio.sleep(0.05)

    assert feed._handled == {}


async def test_feed_forgets_all_after_a_gap(
    feed: ChangeFeed, recorded: Recorded, control: ControlConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "MISSED_AFTER", changes_module.MISSED_AFTER * 0)
    await announce_change(control, 1)

    await feed.poll()

    assert recorded.calls == [None]


async def test_feed_forgets_all_on_a_restored_server(feed: ChangeFeed, recorded: Recorded) -> None:
    assert feed._horizon is not None
    feed._horizon += 1_000_000  # as if the server had been further

    await feed.poll()

    assert recorded.calls == [None]


async def test_old_changes_are_deleted(feed: ChangeFeed, control: ControlConnection) -> None:
    await announce_change(control, 1)
    await control.execute("UPDATE control.tenant_changes SET changed_at = now() - interval '7 hours'")
    await announce_change(control, 2)

    feed._cleaned = float("-inf")
    await feed.poll()

    assert [row["tenant_id"] for row in await control.fetch("SELECT tenant_id FROM control.tenant_changes")] == [2]


async def test_feed_resumes_after_lost_connections_without_missing_a_change(
    open_lane, recorded: Recorded, control: ControlConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = open_lane("changes")
    feed = ChangeFeed(lane, recorded.forget)
    feed.start()
    await until(lambda: recorded.calls == [None])

    for tenant_id in (1, 2, 3):
        await control.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'billingwatch changes' AND datname = current_database()"
        )
        await announce_change(control, tenant_id)
        await until(lambda wanted=tenant_id: recorded.calls[-1] == {wanted})
    await feed.close()

    assert recorded.calls == [None, {1}, {2}, {3}]


async def test_feed_starts_while_the_database_is_away(open_lane, recorded: Recorded, database: str) -> None:
    lane = open_lane("changes")
    lane._dsn = "postgresql://nobody@127.0.0.1:1/nothing"
    feed = ChangeFeed(lane, recorded.forget)
    feed.start()
    await until(lambda: lane.generation > 0)

    lane._dsn = database
    await until(lambda: recorded.calls == [None])

    assert feed.task.restarts == 0
    await feed.close()


@pytest.fixture
async def analyst(control: ControlConnection, tenant, database: str) -> AsyncIterator[asyncpg.Connection]:
    """A session of an analyst that may write as far as its role may."""
    made = await create_analyst(control, "acme")
    session = await asyncpg.connect(analyst_dsn(database, made.role, made.password))
    await session.execute("SET default_transaction_read_only = off; SET statement_timeout = 0")
    yield session
    session.terminate()
    await revoke_analyst(control, made.role)


@pytest.mark.both_isolations
async def test_notifications_of_an_analyst_reach_no_process(
    analyst: asyncpg.Connection, database: str, seal, control: ControlConnection, tenant, open_lane
) -> None:
    registry = Registry(open_lane("registry"), seal, database)
    registry.start()
    await until(lambda: registry._generation == 1)
    await registry.by_tenant_id(tenant.tenant_id)

    await analyst.execute("SELECT pg_notify('billingwatch_tenants', i::text) FROM generate_series(1, 100000) AS i")
    polled = registry.changes._polled_at
    await until(lambda: registry.changes._polled_at != polled)

    assert registry._generation == 1
    assert _Key(tenant_id=tenant.tenant_id) in registry._answers
    assert await control.fetch("SELECT FROM pg_stat_activity WHERE query ILIKE 'LISTEN%' AND datname = current_database()") == []
    await registry.close()
