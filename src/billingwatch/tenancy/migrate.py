"""Migrating: the control plane, then every tenant that is behind, by replaying text that was rendered once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import msgspec

from billingwatch.errors import SchemaOutdated
from billingwatch.postgres import migrations
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.analysts import regrant
from billingwatch.tenancy.isolation import Isolation, checked_schema_name
from billingwatch.tenancy.shared import (
    SharedSchema,
    check_isolation,
    create_shared,
    find_shared,
    migrate_shared,
    release_functions,
    settle_functions,
)
from billingwatch.tenancy.tenants import TenantId

sql = load_statements(__file__, "migrate.sql")

LOCK_TIMEOUT = "2s"  # a tenant whose tables are held longer is reported, and left for the next run


class Migrated(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one tenant; `error` is None when it is at head now."""

    name: str
    from_revision: str
    error: str | None


async def ensure_control_plane(
    control: ControlConnection, *, isolation: Isolation = "schema", partitions: int = 0, upgrade: bool = False
) -> None:
    """Set up an empty database; bring an older control plane to head if `upgrade`, else raise SchemaOutdated.

    IsolationMismatch when the database was set up with another isolation; RowIsolationNotPermitted, RolesMissing.
    """
    async with control.transaction():
        await control.execute(sql["lock"])
        initialised: bool = await control.fetchval(sql["initialised"])
        revision: str | None = await control.fetchval(sql["revision"]) if initialised else None
        head = migrations.head("control")
        if revision == head:
            await check_isolation(control, isolation)
            return
        if revision is not None and not migrations.known_revision("control", revision):
            raise SchemaOutdated(reason=f"the control plane is at {revision}, which this release does not know", hint="run a newer release")
        if revision is not None and not upgrade:
            raise SchemaOutdated(reason=f"the control plane is at {revision}, this release needs {head}")
        if revision is not None and await control.fetchval(sql["knows_isolation"]):
            await release_functions(control)
        await control.execute(migrations.render_upgrade("control", revision))
        await control.execute(sql["set_revision"], head)
        if revision is None and isolation == "row":
            await create_shared(control, partitions)
        await settle_functions(control)
        await check_isolation(control, isolation)


async def migrate_tenants(control: ControlConnection) -> AsyncIterator[Migrated]:
    """Bring every tenant that is behind to head, each in one transaction; one that fails is reported and the others go on."""
    shared = await find_shared(control)
    if shared is not None:
        if not shared.at_head:
            yield await _migrate_shared(control, shared)
        return
    head, digest = migrations.head("tenant"), migrations.views_digest()
    for row in await control.fetch(sql["tenants_behind"], head, digest):
        error: str | None = None
        try:
            await _migrate_tenant(control, row["tenant_id"], row["schema_name"])
        except (asyncpg.PostgresError, SchemaOutdated) as failure:
            error = str(failure)
        yield Migrated(name=row["name"], from_revision=row["revision"], error=error)


async def count_tenants_behind(control: ControlConnection) -> int:
    count: int = await control.fetchval(sql["count_tenants_behind"], migrations.head("tenant"), migrations.views_digest())
    return count


async def _migrate_shared(control: ControlConnection, shared: SharedSchema) -> Migrated:
    error: str | None = None
    try:
        await migrate_shared(control, shared)
    except (asyncpg.PostgresError, SchemaOutdated) as failure:
        error = str(failure)
    return Migrated(name=shared.plane.schema_name, from_revision=shared.revision, error=error)


async def _migrate_tenant(control: ControlConnection, tenant_id: TenantId, schema_name: str) -> None:
    async with control.transaction():
        revision: str | None = await control.fetchval(sql["claim_tenant"], tenant_id, migrations.head("tenant"), migrations.views_digest())
        if revision is None:
            return
        if not migrations.known_revision("tenant", revision):
            raise SchemaOutdated(reason=f"its schema is at {revision}, which this release does not know")
        await control.execute(
            f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; SET LOCAL search_path = {checked_schema_name(schema_name)};\n"
            f"{migrations.render_drop_views()}\n{migrations.render_upgrade('tenant', revision)}\n{migrations.render_views()}"
        )
        await regrant(control, tenant_id, schema_name)
        await control.execute(sql["set_tenant_revision"], tenant_id, migrations.head("tenant"), migrations.views_digest())
