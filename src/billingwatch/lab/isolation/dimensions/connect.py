"""Connecting: a new connection, and its first question to a tenant's tables."""

from __future__ import annotations

import asyncio
import time
from statistics import median

from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.fill import read_event
from billingwatch.lab.isolation.world import Task
from billingwatch.tenancy.scope import tenant_scope

TIMES = 15
MILLI = 1000


def measure(task: Task) -> Figures:
    """New connections, one after the other, each for another tenant."""
    return asyncio.run(_measure(task))


async def _measure(task: Task) -> Figures:
    connects: list[float] = []
    firsts: list[float] = []
    seconds: list[float] = []
    for member in task.random().choices(task.members, k=TIMES):
        began = time.perf_counter()
        async with task.stage.control() as connection:
            connected = time.perf_counter()
            async with tenant_scope(connection, member) as tenant:
                await read_event(tenant)
            first = time.perf_counter()
            async with tenant_scope(connection, member) as tenant:
                await read_event(tenant)
            second = time.perf_counter()
        connects.append(connected - began)
        firsts.append(first - connected)
        seconds.append(second - first)
    return {"connect": median(connects) * MILLI, "first": median(firsts) * MILLI, "second": median(seconds) * MILLI}


DIMENSION = Dimension(
    key="connect",
    title="Connecting",
    method=f"{TIMES} new connections, each for another tenant: until it is ready, until the first row of `events` by primary key, and the same once more; medians.",
    measures=(
        Measure(key="connect", title="connection ready", unit="ms"),
        Measure(key="first", title="first query", unit="ms", headline=True),
        Measure(key="second", title="the same again", unit="ms"),
    ),
    measure=measure,
)
