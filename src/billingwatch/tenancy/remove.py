"""Removing a tenant: its analysts, its tables or rows, and all that the control plane knows of it."""

from __future__ import annotations

import asyncio

from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.postgres.tenant_plane import metadata
from billingwatch.tenancy.analysts import list_analysts, revoke_analyst
from billingwatch.tenancy.audit import OPERATOR, record_change
from billingwatch.tenancy.changes import announce_change
from billingwatch.tenancy.isolation import checked_schema_name, entrance, isolation_of
from billingwatch.tenancy.provision import TenantRow, find_tenant

sql = load_statements(__file__, "remove.sql")

PATIENCE = 120  # seconds; the service's own transactions are shorter
LOOK_EVERY = 0.05  # seconds


async def remove_tenant(control: ControlConnection, name: str) -> TenantRow:
    """Remove a tenant and its data, and return what it was.

    After a failure the tenant is in state `removing`, and the removal can be repeated.

    Raises TenantNotFound, AnalystsNotPermitted, AnalystRemains.
    """
    tenant = await find_tenant(control, name)
    # Committed by itself: whoever serves or visits the tenant must know before its tables are gone.
    async with control.transaction():
        await control.execute(sql["suspend"], tenant.tenant_id)
        await record_change(control, tenant.tenant_id, OPERATOR, "tenant.removing", {"before": tenant.status, "after": "removing"})
    for analyst in await list_analysts(control, name):
        await revoke_analyst(control, analyst.role)
    async with control.transaction():
        # Its tables first, which a visit under way has locked; what the visit needs of the control plane stays free meanwhile.
        await _delete_rows(control, tenant)
        await control.execute(sql["delete_pending"], tenant.tenant_id)
        await control.execute(sql["delete_tenant"], tenant.tenant_id)
        await announce_change(control, tenant.tenant_id)
        last: int = await control.fetchval(sql["transaction"])
    if isolation_of(tenant.schema_name) == "row":
        # Rows that somebody wrote meanwhile could not be seen; nobody begins to write any more.
        await _wait_for_older(control, last)
        async with control.transaction():
            await _delete_rows(control, tenant)
            await control.execute(sql["delete_pending"], tenant.tenant_id)
    return tenant


async def _delete_rows(control: ControlConnection, tenant: TenantRow) -> None:
    if isolation_of(tenant.schema_name) == "schema":
        await control.execute(f"DROP SCHEMA IF EXISTS {checked_schema_name(tenant.schema_name)} CASCADE")
        return
    deletes = "; ".join(f"DELETE FROM {table.name}" for table in metadata.sorted_tables)  # noqa: S608 - our own tables
    await control.execute(f"{entrance(tenant)}; {deletes}; {sql['leave']}")


async def _wait_for_older(control: ControlConnection, transaction: int) -> None:
    end = asyncio.get_running_loop().time() + PATIENCE
    while not await control.fetchval(sql["older_ended"], transaction) and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110 - it is PostgreSQL that is waited for
        await asyncio.sleep(LOOK_EVERY)
