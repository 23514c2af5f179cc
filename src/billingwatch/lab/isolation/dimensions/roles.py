"""Roles: an analyst for every tenant."""

from __future__ import annotations

import asyncio
import time
from statistics import median

from billingwatch.lab.isolation.analysts import session_of
from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.world import Task
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.analysts import AnalystCreated, create_analyst, revoke_analyst

sql = load_statements(__file__, "roles.sql")

CONNECTS = 10
MILLI = 1000


def measure(task: Task) -> Figures:
    """Create them all, let some in, revoke them all."""
    return asyncio.run(_measure(task))


async def _measure(task: Task) -> Figures:
    async with task.stage.control() as connection:
        names = {row["tenant_id"]: row["name"] for row in await connection.fetch(sql["names"])}
        began = time.perf_counter()
        analysts = [await create_analyst(connection, names[member.tenant_id]) for member in task.members]
        created = time.perf_counter() - began
        ins = [await _let_in(task, analyst) for analyst in task.random().choices(analysts, k=CONNECTS)]
        began = time.perf_counter()
        for analyst in analysts:
            await revoke_analyst(connection, analyst.role)
        revoked = time.perf_counter() - began
    count = len(analysts)
    return {"create": created / count * MILLI, "connect": median(ins) * MILLI, "revoke": revoked / count * MILLI}


async def _let_in(task: Task, analyst: AnalystCreated) -> float:
    began = time.perf_counter()
    async with session_of(task, analyst) as session:
        await session.fetch(sql["question"])
        return time.perf_counter() - began


DIMENSION = Dimension(
    key="roles",
    title="A role for each tenant's analyst",
    method=f"The product makes a read-only login role for each tenant; {CONNECTS} of them connect and ask for open anomalies (median); all are revoked again.",
    measures=(
        Measure(key="create", title="a role", unit="ms"),
        Measure(key="connect", title="login and first question", unit="ms", headline=True),
        Measure(key="revoke", title="revoking one", unit="ms"),
    ),
    measure=measure,
    arms=("schema", "row"),  # a role is no matter of partitions
    once_from=10_000,
)
