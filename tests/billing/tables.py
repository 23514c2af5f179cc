"""What a tenant's tables hold."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from billingwatch.postgres.connections import TenantConnection
from billingwatch.postgres.tenant_plane import metadata


async def contents(tenant: TenantConnection, name: str) -> list[dict[str, Any]]:
    table = metadata.tables[name]
    return [dict(record) for record in await tenant.fetch(str(select(table).order_by(*table.primary_key)))]


async def only_row(tenant: TenantConnection, name: str) -> dict[str, Any]:
    (row,) = await contents(tenant, name)
    return row
