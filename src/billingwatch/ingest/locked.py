"""Tenants whose tables somebody has locked: their events are refused at once, so that they do not hold up the others on their lane.

Stripe delivers what was refused again; what waited for the lock would keep every other tenant of the lane waiting, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import asyncpg
import structlog

from billingwatch.errors import DatabaseUnavailable
from billingwatch.postgres.statements import load_statements
from billingwatch.supervision import SupervisedTask
from billingwatch.tenancy.lanes import Lane, control_plane
from billingwatch.tenancy.tenants import Tenant, TenantId

log = structlog.get_logger()
sql = load_statements(__file__, "locked.sql")

LOOK_EVERY = 0.25  # seconds between looks whether a lock is gone


class LockedTenants:
    """Those of one lane."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._tenants: dict[TenantId, Tenant] = {}
        self._found = asyncio.Event()
        self._watch = SupervisedTask(f"locks {lane.name}", self._until_free)
        self._watch.start()

    @property
    def alive(self) -> bool:
        return self._watch.alive

    def __contains__(self, tenant_id: TenantId) -> bool:
        return tenant_id in self._tenants

    async def find(self, tenants: Iterable[Tenant]) -> bool:
        """See who of them is locked just now; they are known until the lock is gone. Whether there are any. DatabaseUnavailable."""
        asked = {tenant.tenant_id: tenant for tenant in tenants}
        found = await self._look(asked)
        for tenant_id in found - self._tenants.keys():
            log.warning("ingest.tenant_locked", tenant=asked[tenant_id].name)
            self._tenants[tenant_id] = asked[tenant_id]
        if found:
            self._found.set()
        return bool(found)

    async def close(self) -> None:
        await self._watch.stop()

    async def _until_free(self) -> None:
        while True:
            if not self._tenants:
                self._found.clear()
                await self._found.wait()
            await asyncio.sleep(LOOK_EVERY)
            try:
                held = await self._look(self._tenants)
            except (DatabaseUnavailable, asyncpg.PostgresError):
                # The next delivery of a tenant that is still locked finds the lock again.
                held = set[TenantId]()
            for tenant_id in self._tenants.keys() - held:
                log.info("ingest.tenant_unlocked", tenant=self._tenants.pop(tenant_id).name)

    async def _look(self, tenants: dict[TenantId, Tenant]) -> set[TenantId]:
        async with control_plane(self._lane) as connection:
            rows = await connection.fetch(sql["locked_schemas"], sorted({tenant.schema_name for tenant in tenants.values()}))
        schemas = {row["schema_name"] for row in rows}
        return {tenant_id for tenant_id, tenant in tenants.items() if tenant.schema_name in schemas}
