"""One tenant's migration: from its revision to another, step by step; each step, its bookkeeping included, is one transaction.

These commits do not wait for the disk. A server that crashes may take back the last of them, each whole and with its bookkeeping, so the next
run does them again; a run says that it is done only after it has made them durable.
"""

from __future__ import annotations

import asyncpg
import msgspec

from billingwatch.postgres import migrations
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.revisions import Step, outdated, way_back, way_up
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.analysts import regrant
from billingwatch.tenancy.changes import announce_change
from billingwatch.tenancy.isolation import checked_schema_name
from billingwatch.tenancy.patience import BRIEF_LOCKS
from billingwatch.tenancy.tenants import TenantId

sql = load_statements(__file__, "tenant_migration.sql")

REBUILD = ""  # a digest of views that no release has
_VIEWS_IN_THE_WAY = (asyncpg.DependentObjectsStillExistError, asyncpg.FeatureNotSupportedError)


class Behind(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant that is to be migrated."""

    tenant_id: TenantId
    name: str
    schema_name: str
    revision: str
    views_digest: str


class Overtaken(Exception):
    """Somebody else has migrated the tenant meanwhile."""


class Mover:
    """Takes tenants to head, or with `back` from head to the revision before it.

    The views stay where they are unless they changed, or Postgres says that they stand in a step's way; which steps those are is remembered.
    """

    def __init__(self, dsn: str, *, back: bool = False) -> None:
        self._dsn = dsn
        self._back = back
        self._obstructed: set[str] = set()
        self._on_the_way: dict[TenantId, Behind] = {}

    @property
    def wanted(self) -> str:
        """Where tenants are taken."""
        return way_back("tenant").to if self._back else migrations.head("tenant")

    def way(self, revision: str) -> tuple[Step, ...]:
        """The steps from `revision`; RevisionUnknown."""
        if self._back:
            return (way_back("tenant"),)
        # At head with older views, the views are the one step.
        return way_up("tenant", revision) or (Step(to=revision),)

    async def move(self, connection: asyncpg.Connection, tenant: Behind) -> None:
        """Take the tenant there. Raises what Postgres says, and Overtaken; the steps before the one that failed stay done, and move goes on there."""
        tenant = self._on_the_way.pop(tenant.tenant_id, tenant)
        *earlier, last = self.way(tenant.revision)
        for step in earlier:
            self._on_the_way[tenant.tenant_id] = tenant = await self._take(connection, tenant, step, renew=False, last=False)
        renew = not self._back and tenant.views_digest != migrations.views_digest()
        await self._take(connection, tenant, last, renew=renew, last=True)

    async def _take(self, connection: asyncpg.Connection, tenant: Behind, step: Step, *, renew: bool, last: bool) -> Behind:
        if step.online is not None:
            from billingwatch.tenancy.online import run_online  # noqa: PLC0415 - slow to import, and seldom needed

            await run_online(self._dsn, tenant.schema_name, step.online)
        without_views = renew or step.to in self._obstructed
        try:
            return await self._commit(connection, tenant, step, without_views=without_views, last=last)
        except _VIEWS_IN_THE_WAY:
            if without_views:
                raise
            moved = await self._commit(connection, tenant, step, without_views=True, last=last)
            self._obstructed.add(step.to)
            return moved

    async def _commit(self, connection: asyncpg.Connection, tenant: Behind, step: Step, *, without_views: bool, last: bool) -> Behind:
        text, digest = step.text, tenant.views_digest
        if without_views:
            # Of views, the last step up knows all; a step back leaves those that can do without what it took away, to be completed by a release.
            text = f"{migrations.render_drop_views()}\n{text}\n{self._views() if last else ''}"
            digest = migrations.views_digest() if last and not self._back else REBUILD
        try:
            await connection.execute(
                f"BEGIN; SET LOCAL synchronous_commit = off; {BRIEF_LOCKS}"
                f"SELECT FROM control.tenants WHERE tenant_id = {tenant.tenant_id:d} FOR NO KEY UPDATE"
            )
            # Before the path is set, under which Postgres would plan it anew for each tenant.
            claimed = await connection.fetchrow(sql["claim"], tenant.tenant_id, tenant.revision, step.to, digest)
            if claimed is None:
                raise Overtaken  # noqa: TRY301 - rolls back like any failure inside
            if outdated(tenant.revision) != outdated(step.to):
                await announce_change(ControlConnection(connection), tenant.tenant_id)
            text = f"SET LOCAL search_path = {checked_schema_name(tenant.schema_name)};\n{text}"
            if claimed["has_analysts"]:
                await connection.execute(text)
                await regrant(ControlConnection(connection), tenant.tenant_id, tenant.schema_name)
                text = ""
            await connection.execute(f"{text};\nCOMMIT")  # in one message, because a fleet is thousands of these
        except (asyncpg.PostgresError, Overtaken):
            if not connection.is_closed():
                await connection.execute("ROLLBACK")
            raise
        return msgspec.structs.replace(tenant, revision=step.to, views_digest=digest)

    def _views(self) -> str:
        return migrations.render_possible_views() if self._back else migrations.render_views()
