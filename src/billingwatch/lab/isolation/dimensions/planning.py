"""Planning: how long PostgreSQL thinks about a join of a tenant's tables."""

from __future__ import annotations

import asyncio
import json
from statistics import median

import asyncpg

from billingwatch.lab.fleet import Member
from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.world import Task
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.scope import tenant_scope

sql = load_statements(__file__, "planning.sql")

TENANTS_MAX = 300
TIMES = 50


def measure(task: Task) -> Figures:
    """EXPLAIN tells the planning time."""
    return asyncio.run(_measure(task))


async def _measure(task: Task) -> Figures:
    members = task.members[:TENANTS_MAX]
    async with task.stage.control() as connection:
        first = [await _planned(connection, member) for member in members]
        turns = [await _planned(connection, member) for member in members]
        same = [await _planned(connection, members[0]) for _ in range(TIMES)]
    return {"first": median(first[1:] or first), "turns": median(turns), "same": median(same)}


async def _planned(connection: asyncpg.Connection, member: Member) -> float:
    async with tenant_scope(connection, member, readonly=True) as tenant:
        [plan] = json.loads(await tenant.fetchval(sql["join"]))
    return float(plan["Planning Time"])


DIMENSION = Dimension(
    key="planning",
    title="Planning a join",
    method=f"EXPLAIN (SUMMARY) of a join of charges, refunds and disputes on a fresh connection: for each of up to {TENANTS_MAX} tenants the first time, "
    "for each again, and for one of them over and over; medians.",
    measures=(
        Measure(key="first", title="a tenant's first time", unit="ms", headline=True),
        Measure(key="turns", title="again, tenants in turn", unit="ms"),
        Measure(key="same", title="again, the same tenant", unit="ms"),
    ),
    measure=measure,
)
