"""The operator's report: one question over all tenants."""

from __future__ import annotations

import asyncio
import time

import asyncpg

from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.world import Task
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.isolation import checked_schema_name

sql = load_statements(__file__, "overview.sql")

TOGETHER = 100  # schemas in one statement
MILLI = 1000


def measure(task: Task) -> Figures:
    """Cold, and once more on the same connection."""
    return asyncio.run(_measure(task))


async def _measure(task: Task) -> Figures:
    schemas = sorted({checked_schema_name(member.schema_name) for member in task.members})
    async with task.stage.control() as connection:
        first = await _ask(connection, schemas)
        again = await _ask(connection, schemas)
    return {"first": first * MILLI, "again": again * MILLI}


async def _ask(connection: asyncpg.Connection, schemas: list[str]) -> float:
    began = time.perf_counter()
    totals: dict[str, int] = {}
    for start in range(0, len(schemas), TOGETHER):
        parts = [sql["captured"].format(schema=schema) for schema in schemas[start : start + TOGETHER]]
        for row in await connection.fetch(" UNION ALL ".join(parts)):
            totals[row["currency"]] = totals.get(row["currency"], 0) + row["captured"]
    return time.perf_counter() - began


DIMENSION = Dimension(
    key="overview",
    title="The operator's report over all tenants",
    method=f"Captured per currency in the last 30 days, over all tenants, as the database's owner: with schemas as UNION ALL over {TOGETHER} of them at a time, "
    "with rows as one statement. On a fresh connection, and once more.",
    measures=(
        Measure(key="first", title="fresh connection", unit="ms", headline=True),
        Measure(key="again", title="the same again", unit="ms"),
    ),
    measure=measure,
    volumes=("each", "total"),
)
