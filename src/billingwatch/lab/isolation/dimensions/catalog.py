"""Catalog: what PostgreSQL keeps about tables, before any row."""

from __future__ import annotations

import asyncio

from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.world import Task
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "catalog.sql")


def measure(task: Task) -> Figures:
    """Ask the catalog about itself."""
    return asyncio.run(_measure(task))


async def _measure(task: Task) -> Figures:
    async with task.stage.control() as connection:
        [row] = await connection.fetch(sql["sizes"])
    return {key: float(value) for key, value in row.items() if value is not None}


DIMENSION = Dimension(
    key="catalog",
    title="Size of the catalog",
    method="Counted in the system catalogs and the database's directory after the tenants were provisioned and given their history.",
    measures=(
        Measure(key="relations", title="relations (tables, indexes, toast, views)", unit="rows"),
        Measure(key="columns", title="columns (pg_attribute)", unit="rows"),
        Measure(key="catalog_mb", title="system catalogs", unit="MB", headline=True),
        Measure(key="database_mb", title="whole database", unit="MB"),
        Measure(key="files", title="files of the database", unit="files", headline=True),
    ),
    measure=measure,
    once_from=10_000,
    volumes=("each", "total"),
)
