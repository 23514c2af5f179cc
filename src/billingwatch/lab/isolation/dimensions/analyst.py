"""Analysts: the questions of a dashboard, asked by a tenant's own read-only role."""

from __future__ import annotations

import asyncio
import time
from statistics import median

import asyncpg

from billingwatch.lab.fleet import Member
from billingwatch.lab.isolation.analysts import analyst_of
from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.world import Task
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "analyst.sql")

TIMES = 5
MILLI = 1000


def measure(task: Task) -> Figures:
    """The dashboard of the huge tenant, and of a small one."""
    return asyncio.run(_measure(task))


async def _measure(task: Task) -> Figures:
    figures = {"huge": await _dashboard(task, task.members[0])}
    if len(task.members) > 1:
        figures["small"] = await _dashboard(task, task.random().choice(task.members[1:]))
    return figures


async def _dashboard(task: Task, member: Member) -> float:
    async with analyst_of(task, member) as session:
        return median([await _ask(session) for _ in range(TIMES)]) * MILLI


async def _ask(session: asyncpg.Connection) -> float:
    began = time.perf_counter()
    for question in ("revenue", "failures", "disputes", "top_payers"):
        await session.fetch(sql[question])
    return time.perf_counter() - began


DIMENSION = Dimension(
    key="analyst",
    title="An analyst's dashboard",
    method="A read-only role of the tenant asks four questions over the analysts' views and tables: revenue by day of 30 days, failures by hour of 7 days, "
    f"open disputes, the ten best payers of 90 days. The time of all four, median of {TIMES}, for the huge tenant and for a small one.",
    measures=(
        Measure(key="small", title="a small tenant", unit="ms", headline=True),
        Measure(key="huge", title="the huge tenant", unit="ms", headline=True),
    ),
    measure=measure,
    volumes=("each", "total"),
)
