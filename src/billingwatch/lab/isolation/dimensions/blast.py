"""Blast radius: rows of other tenants that a mistake in a statement shows or changes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg

from billingwatch.lab.isolation.analysts import analyst_of
from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.world import Task
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.scope import tenant_scope

sql = load_statements(__file__, "blast.sql")

TENANTS_MAX = 20  # who make the mistakes


def measure(task: Task) -> Figures:
    """Make each mistake as several tenants."""
    return asyncio.run(_measure(task))


async def _measure(task: Task) -> Figures:
    rows = {"read": 0, "written": 0, "unscoped": 0, "analyst": 0}
    members = task.random().sample(task.members, k=min(TENANTS_MAX, len(task.members)))
    async with task.stage.control() as connection:
        for member in members:
            own = f"cus_{member.tenant_id}_"
            async with tenant_scope(connection, member) as tenant:
                rows["read"] += await tenant.fetchval(sql["read"], own)
                rows["written"] += await tenant.fetchval(sql["write"], own)
            with suppress(asyncpg.UndefinedTableError):  # nothing is on the path: the statement fails, and shows nothing
                rows["unscoped"] += await connection.fetchval(sql["read"], own)
    rows["analyst"] = await _as_analyst(task)
    return {key: float(value) for key, value in rows.items()}


async def _as_analyst(task: Task) -> int:
    """Rows that an analyst sees who claims to be another tenant, in the way that its isolation knows."""
    me, other = task.members[0], task.members[-1]
    async with analyst_of(task, me) as session:
        await session.execute(sql["claim"].format(schema=other.schema_name, tenant=other.tenant_id))
        with suppress(asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
            strange: int = await session.fetchval(sql["read"], f"cus_{me.tenant_id}_")
            return strange
    return 0


DIMENSION = Dimension(
    key="blast",
    title="Blast radius of a mistake",
    method=f"Up to {TENANTS_MAX} tenants make mistakes, and rows of other tenants are counted: a SELECT and an UPDATE whose filter was forgotten, in the "
    "tenant's scope; a SELECT outside every scope on the service's connection; an analyst who sets search_path and every setting to another "
    "tenant's. The charges of every tenant's history bear its number, so a stranger's row is known.",
    measures=(
        Measure(key="read", title="strangers' rows read without a filter", unit="rows"),
        Measure(key="written", title="strangers' rows changed without a filter", unit="rows"),
        Measure(key="unscoped", title="rows read without a scope", unit="rows"),
        Measure(key="analyst", title="strangers' rows an analyst sees", unit="rows"),
    ),
    measure=measure,
    fewest=2,
)
