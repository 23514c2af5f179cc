"""Removing a tenant: nothing of it stays, and nothing of the others goes."""

from __future__ import annotations

import asyncio

import pytest

from billingwatch.errors import TenantNotFound
from billingwatch.postgres.control_plane import metadata as control_tables
from billingwatch.postgres.tenant_plane import metadata as tenant_tables
from billingwatch.tenancy.analysts import create_analyst
from billingwatch.tenancy.provision import add_secret, find_tenant
from billingwatch.tenancy.remove import remove_tenant
from billingwatch.tenancy.scope import tenant_scope

pytestmark = pytest.mark.both_isolations

ADD = "INSERT INTO customers (customer_id, deleted, created_at, updated_at, event_id, version) VALUES ('cus_1', false, now(), now(), 'evt_1', '1')"


async def named_in_control_plane(control, tenant_id: int) -> dict[str, int]:
    found = {
        table.name: await control.fetchval(f"SELECT count(*) FROM control.{table.name} WHERE tenant_id = $1", tenant_id)
        for table in control_tables.sorted_tables
        if "tenant_id" in table.columns
    }
    return {name: rows for name, rows in found.items() if rows}


async def rows_of(control, tenant) -> dict[str, int]:
    """What is left in the tables that held its rows, where there are any."""
    if await control.fetchval("SELECT to_regnamespace($1)", tenant.schema_name) is None:
        return {}
    found = {
        table.name: await control.fetchval(f"SELECT count(*) FROM {tenant.schema_name}.{table.name}")
        for table in tenant_tables.sorted_tables
    }
    return {name: rows for name, rows in found.items() if rows}


async def test_nothing_of_a_removed_tenant_stays(control, seal, tenant):
    analyst = await create_analyst(control, tenant.name)
    await add_secret(control, seal, tenant.name, "whsec_another_secret")
    await control.execute(
        "INSERT INTO control.pending_events (tenant_id, event_id, received_at) VALUES ($1, 'evt_1', now())", tenant.tenant_id
    )
    async with tenant_scope(control, tenant) as scoped:
        await scoped.execute(ADD)

    removed = await remove_tenant(control, tenant.name)

    assert removed.tenant_id == tenant.tenant_id
    # The removal itself is a change that processes have to read; changes hold the id alone, and are deleted after hours.
    assert set(await named_in_control_plane(control, tenant.tenant_id)) == {"tenant_changes"}
    assert await control.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", analyst.role) == 0
    assert await rows_of(control, tenant) == {}
    with pytest.raises(TenantNotFound):
        await find_tenant(control, tenant.name)


async def test_other_tenants_keep_everything(control, provision_tenant, tenant):
    other, _ = await provision_tenant("other")
    for each in (tenant, other):
        async with tenant_scope(control, each) as scoped:
            await scoped.execute(ADD)

    await remove_tenant(control, tenant.name)

    async with tenant_scope(control, other) as scoped:
        assert await scoped.fetchval("SELECT count(*) FROM customers") == 1
    assert (await find_tenant(control, "other")).status == "active"


async def test_a_name_that_was_removed_can_be_given_again(control, provision_tenant, tenant):
    async with tenant_scope(control, tenant) as scoped:
        await scoped.execute(ADD)
    await remove_tenant(control, tenant.name)

    again, _ = await provision_tenant(tenant.name)

    async with tenant_scope(control, again) as scoped:
        assert await scoped.fetchval("SELECT count(*) FROM customers") == 0


async def test_what_a_visit_under_way_writes_does_not_stay(control, connect, tenant):
    async with tenant_scope(await connect(), tenant) as visitor:
        await visitor.execute(ADD)
        removal = asyncio.create_task(remove_tenant(control, tenant.name))
        await asyncio.sleep(0.3)
        assert not removal.done()

    await removal

    assert await rows_of(control, tenant) == {}


async def test_an_unknown_tenant_cannot_be_removed(control):
    with pytest.raises(TenantNotFound):
        await remove_tenant(control, "nobody")
