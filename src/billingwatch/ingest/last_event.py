"""The newest event of a tenant, as `tenants show` reports it."""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec

from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.isolation import Placed
from billingwatch.tenancy.scope import tenant_scope

sql = load_statements(__file__, "last_event.sql")


class LastEvent(msgspec.Struct, frozen=True, kw_only=True):
    received_at: datetime
    type: str


async def last_event(control: ControlConnection, tenant: Placed) -> LastEvent | None:
    """Return the event that arrived last.

    None before the first one, and when an unfinished removal has deleted the tables.
    """
    try:
        async with tenant_scope(control, tenant, readonly=True) as scoped:
            row = await scoped.fetchrow(sql["last_event"])
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedObjectError):
        return None
    return None if row is None else LastEvent(**dict(row))
