"""Rotation: what it costs that the next statement is another tenant's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import cycle

import asyncpg

from billingwatch.lab.fleet import Member
from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.fill import read_event
from billingwatch.lab.isolation.world import Task
from billingwatch.tenancy.scope import tenant_scope

ROUND = (1, 10, 100, 256, 300, 1000)  # tenants in turn; PostgreSQL remembers 256 search paths
SHARE = 0.1  # of the scale's seconds, for each of them
MICRO = 1_000_000
LEAST = 3  # times that each tenant has its turn


def measure(task: Task) -> Figures:
    """One connection, tenants in turn."""
    return asyncio.run(_measure(task))


async def _measure(task: Task) -> Figures:
    figures: dict[str, float] = {}
    for count in ROUND:
        if count > len(task.members):
            break
        async with task.stage.control() as connection:
            turns = cycle(task.members[:count])
            await _visits(connection, turns, count)
            visits, began, seconds = 0, time.perf_counter(), task.scale.seconds * SHARE
            while visits < count * LEAST or time.perf_counter() < began + seconds:
                await _visits(connection, turns, count)
                visits += count
            figures[f"turn_{count}"] = (time.perf_counter() - began) / visits * MICRO
    return figures


async def _visits(connection: asyncpg.Connection, turns: Iterator[Member], count: int) -> None:
    for _ in range(count):
        async with tenant_scope(connection, next(turns)) as tenant:
            await read_event(tenant)


DIMENSION = Dimension(
    key="rotation",
    title="Taking turns on one connection",
    method="On a fresh connection, k tenants take turns: the product's tenant scope, one row of `events` by primary key, commit. Each has had "
    "its first turn before the clock starts. k goes past 256, the number of search paths that PostgreSQL remembers.",
    measures=tuple(
        Measure(key=f"turn_{count}", title=f"a turn, {count:,} tenant{'s' * (count > 1)} in turn", unit="µs", headline=count in {1, 1000})
        for count in ROUND
    ),
    measure=measure,
)
