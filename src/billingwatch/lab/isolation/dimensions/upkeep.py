"""Upkeep: vacuum, a checkpoint after every tenant wrote something, and coming back from a crash."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import asyncpg

from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.fill import FIRST_EVENT
from billingwatch.lab.isolation.world import Task
from billingwatch.lab.machine import PROC, parent_named
from billingwatch.postgres.embedded import EmbeddedServer
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.scope import tenant_scope

sql = load_statements(__file__, "upkeep.sql")

TENANTS_MAX = 2000  # who write something
GONE_EVERY = 0.005  # seconds
MILLI = 1000


def measure(task: Task) -> Figures:
    """Each once."""
    figures = asyncio.run(_measure(task))
    recovery = _recover(task)
    return {**figures, **({"recovery": recovery} if recovery is not None else {})}


async def _measure(task: Task) -> dict[str, float]:
    async with task.stage.control() as connection:
        await connection.execute(sql["checkpoint"])
        await _write(task, connection)
        began = time.perf_counter()
        await connection.execute(sql["checkpoint"])
        checkpoint = time.perf_counter() - began
        began = time.perf_counter()
        await connection.execute(sql["vacuum"])
        vacuum = time.perf_counter() - began
        await connection.execute(sql["checkpoint"])
        await _write(task, connection)
    return {"checkpoint": checkpoint * MILLI, "vacuum": vacuum}


async def _write(task: Task, connection: asyncpg.Connection) -> None:
    for member in task.members[:TENANTS_MAX]:
        async with tenant_scope(connection, member) as tenant:
            await tenant.execute(sql["touch"], FIRST_EVENT)


def _recover(task: Task) -> float | None:
    """Seconds from the start of a server that was cut off to its first answer; None where the server is not ours to cut off."""
    ground = task.world.ground.settings
    if ground.database_url is not None:
        return None
    postmaster = asyncio.run(_postmaster(task))
    if postmaster is None:
        return None
    os.kill(postmaster, signal.SIGQUIT)  # immediate shutdown: no checkpoint, and the next start replays the log
    while (Path(PROC) / str(postmaster)).exists():
        time.sleep(GONE_EVERY)
    began = time.perf_counter()
    with EmbeddedServer.acquire(ground.data_dir, binaries=ground.postgres_bin):
        return time.perf_counter() - began


async def _postmaster(task: Task) -> int | None:
    async with task.stage.control() as connection:
        return parent_named(connection.get_server_pid(), "postgres")


DIMENSION = Dimension(
    key="upkeep",
    title="Vacuum, checkpoint, recovery",
    method=f"Up to {TENANTS_MAX:,} tenants update one row of `events` each, then CHECKPOINT; VACUUM (ANALYZE) of the whole database; the rows are updated once more, "
    "the embedded server is shut down at once, without a checkpoint, and started: until it answers again.",
    measures=(
        Measure(key="checkpoint", title="checkpoint after a write by each", unit="ms"),
        Measure(key="vacuum", title="VACUUM (ANALYZE) of the database", unit="s", headline=True),
        Measure(key="recovery", title="start after a crash", unit="s", headline=True),
    ),
    measure=measure,
    once_from=10_000,
)
