"""Memory: what a backend keeps of every tenant that it has served, and gives back only with its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import asyncpg

from billingwatch.lab.fleet import Member
from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.world import Task
from billingwatch.lab.machine import memory
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.scope import tenant_scope

sql = load_statements(__file__, "memory.sql")

TENANTS_MAX = 10_000  # served by the backend that is looked at
KB = 1024
MILLI = 1000


def measure(task: Task) -> Figures:
    """A backend before and after it served tenants."""
    return asyncio.run(_measure(task))


async def _measure(task: Task) -> Figures:
    members = task.members[:TENANTS_MAX]
    figures: dict[str, float] = {}
    for what in ("events", "all"):
        async with task.stage.control() as connection:
            # The first tenant is on the house: it brings what every backend needs, in any isolation.
            async with tenant_scope(connection, members[0]) as tenant:
                await tenant.fetch(sql[what])
            [before] = await connection.fetch(sql["contexts"])
            first = await _serve(connection, members, what)
            [after] = await connection.fetch(sql["contexts"])
            held = memory(connection.get_server_pid())
            again = await _serve(connection, members, what)
        if held is not None:
            figures[f"{what}_mb"] = held.private
        for key in ("", "_indexes"):
            figures[f"{what}{key}_kb_each"] = (after[f"bytes{key}"] - before[f"bytes{key}"]) / KB / max(len(members) - 1, 1)
        figures[f"{what}_recycling"] = (first - again) / len(members) * MILLI
    return figures


async def _serve(connection: asyncpg.Connection, members: Sequence[Member], what: str) -> float:
    """Seconds that one visit to each of them takes."""
    began = time.perf_counter()
    for member in members:
        async with tenant_scope(connection, member) as tenant:
            await tenant.fetch(sql[what])
    return time.perf_counter() - began


DIMENSION = Dimension(
    key="memory",
    title="Memory of a backend",
    method=f"A fresh backend serves up to {TENANTS_MAX:,} tenants once: a count of `events`, or one of every table. What it holds more than after its first "
    "tenant, divided by the other tenants, is the sum over pg_backend_memory_contexts; its private memory is read from the system. They are all served once more: "
    "what the first time took longer is what each tenant pays when its connection is recycled, which gives the memory back.",
    measures=(
        Measure(key="events_kb_each", title="kept of a tenant, one table", unit="KB"),
        Measure(key="all_kb_each", title="kept of a tenant, all tables", unit="KB", headline=True),
        Measure(key="all_indexes_kb_each", title="of all tables', descriptions of indexes", unit="KB", better=None),
        Measure(key="events_indexes_kb_each", title="of one table's, descriptions of indexes", unit="KB", better=None),
        Measure(key="events_mb", title="private memory afterwards, one table", unit="MB"),
        Measure(key="all_mb", title="private memory afterwards, all tables", unit="MB"),
        Measure(key="events_recycling", title="recycling costs a tenant, one table", unit="ms"),
        Measure(key="all_recycling", title="recycling costs a tenant, all tables", unit="ms"),
    ),
    measure=measure,
    once_from=10_000,
)
