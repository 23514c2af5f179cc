"""Attacks by an analyst's sessions. A session that is ended or refused is opened again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg

from billingwatch.errors import DatabaseUnavailable
from billingwatch.lab.faults.scene import AttackOrder
from billingwatch.postgres.connections import open_connection
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "sql_attacks.sql")

SESSIONS = 2
LONG = 3600  # seconds that a statement may take
AGAIN_AFTER = 0.2  # seconds

Begun = Callable[[], None]
Work = Callable[[asyncpg.Connection], Awaitable[None]]


async def notify(order: AttackOrder, begun: Begun) -> None:
    """Send notifications on the channel that releases before 0.1.0 listened on."""

    async def work(session: asyncpg.Connection) -> None:
        while True:
            await session.execute(sql["notify"])

    await _repeat(order, begun, work)


async def hold_snapshot(order: AttackOrder, begun: Begun) -> None:
    """Hold a snapshot open, so that VACUUM can remove nothing."""

    async def work(session: asyncpg.Connection) -> None:
        await session.execute(sql["open_snapshot"])
        while True:
            await session.execute(sql["take_snapshot"])
            await asyncio.sleep(AGAIN_AFTER)

    await _repeat(order, begun, work)


async def heavy_queries(order: AttackOrder, begun: Begun) -> None:
    """Sort and concatenate 3 million values, which takes CPU and memory."""

    async def work(session: asyncpg.Connection) -> None:
        while True:
            await session.execute(sql["heavy"])

    await _repeat(order, begun, work)


async def _repeat(order: AttackOrder, begun: Begun, work: Work) -> None:
    async def run() -> None:
        while True:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, DatabaseUnavailable, OSError):
                session = await open_connection(order.dsn, "analyst", statement_timeout=LONG)
                try:
                    await session.execute(sql["open_session"])
                    await work(session)
                finally:
                    session.terminate()
            await asyncio.sleep(AGAIN_AFTER)

    # The first session must work, or there is no attack.
    session = await open_connection(order.dsn, "analyst", statement_timeout=LONG)
    await session.close()
    tasks = [asyncio.create_task(run()) for _ in range(SESSIONS)]
    begun()
    await asyncio.gather(*tasks)
