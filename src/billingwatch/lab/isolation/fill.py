"""The history that tenants have: charges of the last 90 days, and an event for each, written where they are by SQL, the same in every arm."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from billingwatch.lab.fleet import Member
from billingwatch.lab.stage import Stage
from billingwatch.postgres.connections import ControlConnection, TenantConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.scope import tenant_scope

sql = load_statements(__file__, "fill.sql")

CONNECTIONS = 2
SPAN = 90  # days
FIRST_EVENT = "evt_lab_000000001"  # which every tenant has


async def fill(stage: Stage, members: Sequence[Member], rows: int, *, huge: int) -> None:
    """Give each tenant `rows` charges and events, the first one `huge` charges and a tenth as many events; then let the planner know."""
    left = iter(list(enumerate(members)))

    async def work(control: ControlConnection) -> None:
        for number, member in left:
            charges = max(huge, rows) if number == 0 else rows
            async with tenant_scope(control, member) as tenant:
                await tenant.execute(sql["charges"], charges, SPAN, member.tenant_id)
                await tenant.execute(sql["events"], charges if number else max(charges // 10, rows), SPAN)

    async with stage.control() as first, stage.control() as second:
        await asyncio.gather(work(first), work(second))
        await first.execute(sql["analyze"])
        await first.execute(sql["checkpoint"])


async def read_event(tenant: TenantConnection) -> None:
    """The least that can be asked of a tenant: one row by primary key."""
    await tenant.fetchrow(sql["event"], FIRST_EVENT)
