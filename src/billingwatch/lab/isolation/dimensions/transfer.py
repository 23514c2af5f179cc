"""One tenant by itself: exporting it, restoring it, removing it, and getting the space back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from sqlalchemy import Table

from billingwatch.lab.fleet import Member
from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.world import Task
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.postgres.tenant_plane import metadata
from billingwatch.tenancy.isolation import checked_schema_name
from billingwatch.tenancy.provision import provision
from billingwatch.tenancy.remove import remove_tenant
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.sealing import open_seal

sql = load_statements(__file__, "transfer.sql")

MB = 1024**2
RESTORED = "restored"


def measure(task: Task) -> Figures:
    """The huge tenant out, in again under another name, and that one removed."""
    return asyncio.run(_measure(task))


async def _measure(task: Task) -> Figures:
    figures: dict[str, float] = {}

    @contextmanager
    def timed(key: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        figures[key] = time.perf_counter() - began

    async with task.stage.control() as control:
        with timed("export"):
            copies = await _export(control, task.members[0])
        figures["mb"] = sum(len(copy) for copy in copies.values()) / MB
        with timed("restore"):
            await _restore(task, control, copies)
        await control.execute(sql["vacuum"])
        before: int = await control.fetchval(sql["size"])
        with timed("remove"):
            await remove_tenant(control, RESTORED)
        removed: int = await control.fetchval(sql["size"])
        with timed("vacuum"):
            await control.execute(sql["vacuum"])
        vacuumed: int = await control.fetchval(sql["size"])
    figures["back_at_once"] = (before - removed) / MB
    figures["back"] = (before - vacuumed) / MB
    return figures


async def _export(control: ControlConnection, member: Member) -> dict[str, bytes]:
    copies: dict[str, bytes] = {}
    async with tenant_scope(control, member, readonly=True) as tenant:
        for table in metadata.sorted_tables:
            copy = BytesIO()
            await tenant.copy_from_query(f"SELECT {_columns(table)} FROM {table.name}", output=copy, format="binary")  # noqa: S608 - our own
            copies[table.name] = copy.getvalue()
    return copies


async def _restore(task: Task, control: ControlConnection, copies: dict[str, bytes]) -> None:
    made = await provision(control, open_seal(task.stage.settings), RESTORED)
    async with control.transaction():
        # Not in the tenant's scope: COPY FROM is refused to whom row-level security binds. The setting is tenant_id's default.
        await control.execute(sql["outside"].format(schema=checked_schema_name(made.schema_name), tenant=made.tenant_id))
        for table in metadata.sorted_tables:
            columns = [column.name for column in table.columns]
            await control.copy_to_table(table.name, columns=columns, source=BytesIO(copies[table.name]), format="binary")


def _columns(table: Table) -> str:
    return ", ".join(f'"{column.name}"' for column in table.columns)


DIMENSION = Dimension(
    key="transfer",
    title="Moving and removing one tenant",
    method="The huge tenant's tables are read with COPY in its scope, kept in memory, and written with COPY into a new tenant; with rows that takes a role which "
    "row-level security does not bind. The new tenant is then removed as the product does it: DROP SCHEMA, or DELETE from every table. Space is "
    "that of the database on disk, right after the removal and after VACUUM.",
    measures=(
        Measure(key="export", title="export", unit="s"),
        Measure(key="restore", title="restore", unit="s"),
        Measure(key="remove", title="remove", unit="s", headline=True),
        Measure(key="vacuum", title="VACUUM afterwards", unit="s"),
        Measure(key="back_at_once", title="space back at once", unit="MB", better="more", headline=True),
        Measure(key="back", title="space back after VACUUM", unit="MB", better="more"),
        Measure(key="mb", title="size of the copy", unit="MB", better=None),
    ),
    measure=measure,
    once_from=10_000,
)
