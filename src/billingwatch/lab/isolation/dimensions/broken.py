"""A broken migration: how many others are held back by one tenant whose tables are not as they should be."""

from __future__ import annotations

import asyncio

from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.world import Task
from billingwatch.lab.releases import new_column, releases_to_come
from billingwatch.postgres import migrations
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.fleet import migrate_fleet
from billingwatch.tenancy.fleet_plan import Options
from billingwatch.tenancy.isolation import checked_schema_name

sql = load_statements(__file__, "broken.sql")

COLUMN = "lab"


def measure(task: Task) -> Figures:
    """Break one tenant, migrate, count those that are behind; mend it, and go back to where it was. RuntimeError when it cannot be mended."""
    with releases_to_come(task.stage.directory) as releases:
        releases.add(new_column(COLUMN))
        return asyncio.run(_measure(task))


async def _measure(task: Task) -> Figures:
    schema = checked_schema_name(task.members[-1].schema_name)
    async with task.stage.control() as control:
        await control.execute(sql["break"].format(schema=schema, column=COLUMN))
        await _migrate(task, control)
        behind = await _behind(task, control)
        await control.execute(sql["mend"].format(schema=schema, column=COLUMN))
        await _migrate(task, control)
        if left := await _behind(task, control):
            message = f"{left} tenants are still behind"
            raise RuntimeError(message)
        await _migrate(task, control, back=True)
    return {"behind": 100 * behind / len(task.members)}


async def _behind(task: Task, control: ControlConnection) -> int:
    tenants: int = await control.fetchval(sql["behind"], migrations.head("tenant"), task.arm.isolation)
    return tenants


async def _migrate(task: Task, control: ControlConnection, *, back: bool = False) -> None:
    await migrate_fleet(control, task.stage.dsn, Options(back=back, isolation=task.arm.isolation))


DIMENSION = Dimension(
    key="broken",
    title="Blast radius of a broken migration",
    method="Somebody has given one tenant's `events` the column that the next revision adds, so that the revision fails there; with shared tables, whose "
    "table it is makes no difference. The fleet is migrated, and the tenants are counted that are not at head. Then it is mended, and taken back.",
    measures=(Measure(key="behind", title="tenants left behind by one tenant's mistake", unit="% of tenants", headline=True),),
    measure=measure,
    fewest=2,
    once_from=10_000,
)
