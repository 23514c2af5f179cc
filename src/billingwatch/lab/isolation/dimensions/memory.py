"""Memory: what a backend keeps of every tenant that it has served, and gives back only with its end."""

from __future__ import annotations

import asyncio

import asyncpg

from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.world import Task
from billingwatch.lab.machine import memory
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.scope import tenant_scope

sql = load_statements(__file__, "memory.sql")

TENANTS_MAX = 1000  # served by the backend that is looked at
KB = 1024


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
            before, caches = _private(connection), await _caches(connection)
            for member in members:
                async with tenant_scope(connection, member) as tenant:
                    await tenant.fetch(sql[what])
            after, cached = _private(connection), await _caches(connection)
        if before is not None and after is not None:
            figures[f"{what}_mb"] = after
        figures[f"{what}_kb_each"] = (cached - caches) / KB / max(len(members) - 1, 1)
    return figures


def _private(connection: asyncpg.Connection) -> float | None:
    held = memory(connection.get_server_pid())
    return None if held is None else held.private


async def _caches(connection: asyncpg.Connection) -> int:
    held: int = await connection.fetchval(sql["contexts"])
    return held


DIMENSION = Dimension(
    key="memory",
    title="Memory of a backend",
    method=f"A fresh backend serves up to {TENANTS_MAX:,} tenants once: a count of `events`, or one of every table. What it holds more than after its first "
    "tenant, divided by the other tenants, is the sum over pg_backend_memory_contexts; its private memory is read from the system.",
    measures=(
        Measure(key="events_kb_each", title="kept of a tenant, one table", unit="KB"),
        Measure(key="all_kb_each", title="kept of a tenant, all tables", unit="KB", headline=True),
        Measure(key="events_mb", title="private memory afterwards, one table", unit="MB"),
        Measure(key="all_mb", title="private memory afterwards, all tables", unit="MB"),
    ),
    measure=measure,
)
