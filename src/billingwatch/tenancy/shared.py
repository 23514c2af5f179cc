"""Row isolation: the one schema of all tenants, the roles that work in it, and bringing it to this release's revision."""

from __future__ import annotations

import asyncpg
import msgspec

from billingwatch.errors import IsolationMismatch, RolesMissing, RowIsolationNotPermitted, SchemaOutdated
from billingwatch.postgres import migrations
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.revisions import shared_way
from billingwatch.postgres.shared_plane import SharedPlane
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.analysts import ANALYST_TABLES, let_read
from billingwatch.tenancy.changes import announce_change
from billingwatch.tenancy.isolation import Isolation, checked_schema_name, new_shared_schema_name
from billingwatch.tenancy.patience import BRIEF_LOCKS

sql = load_statements(__file__, "shared.sql")

REBUILD = ""  # a digest of views that no release has


class SharedSchema(msgspec.Struct, frozen=True, kw_only=True):
    """The schema of all tenants, and what it was last given."""

    plane: SharedPlane
    revision: str
    views_digest: str

    @property
    def at_head(self) -> bool:
        return (self.revision, self.views_digest) == (migrations.head("tenant"), migrations.views_digest())


async def find_shared(control: ControlConnection) -> SharedSchema | None:
    """The schema of all tenants; None where each has its own."""
    row = await control.fetchrow(sql["find_isolation"])
    if row is None or row["kind"] == "schema":
        return None
    plane = SharedPlane(schema_name=checked_schema_name(row["schema_name"]), partitions=row["partitions"])
    return SharedSchema(plane=plane, revision=row["revision"], views_digest=row["views_digest"])


async def check_isolation(control: ControlConnection, wanted: Isolation) -> None:
    """Refuse a database that keeps its tenants apart in another way than the process was told. IsolationMismatch, RolesMissing."""
    shared = await find_shared(control)
    found: Isolation = "schema" if shared is None else "row"
    if found != wanted:
        raise IsolationMismatch(found=found, wanted=wanted)
    if shared is not None:
        plane = shared.plane
        roles = [plane.scope_role, plane.recorder_role, plane.analysts_role, plane.reader_role]
        missing = await control.fetchval(sql["missing_roles"], roles)
        if missing is not None:
            raise RolesMissing(roles=missing)


async def create_shared(control: ControlConnection, partitions: int) -> None:
    """Choose row isolation for a control plane that has just been made; part of the caller's transaction. RowIsolationNotPermitted."""
    plane = SharedPlane(schema_name=new_shared_schema_name(), partitions=partitions)
    try:
        await control.execute(_sql("create_roles", plane))
        if not await _superuser(control):
            await control.execute(_sql("join_scope", plane))
        await control.execute(f"CREATE SCHEMA {plane.schema_name}")
        await control.execute(_sql("open_schema", plane))
        await control.execute(sql["choose_row"], plane.schema_name, partitions, migrations.head("tenant"), migrations.views_digest())
        await control.execute(_sql("tenant_of_analyst", plane))
        await control.execute(
            f"SET LOCAL search_path = {plane.schema_name};\n{migrations.render_upgrade('tenant', None, plane)}\n"
            f"{migrations.render_shared_views()}\n{_sql('let_record', plane)};\nSET LOCAL search_path = pg_catalog"
        )
        await let_read(control, plane.schema_name, [plane.scope_role])
    except asyncpg.InsufficientPrivilegeError as error:
        raise RowIsolationNotPermitted(reason=str(error)) from error


async def release_functions(control: ControlConnection) -> None:
    """Before the control plane's revisions: let them replace what row isolation has made its own."""
    shared = await find_shared(control)
    if shared is not None:
        for function in await control.fetchval(sql["recording_functions"]):
            await control.execute(_sql("take_from_recorder", shared.plane, function=function))


async def settle_functions(control: ControlConnection) -> None:
    """After the control plane's revisions: take what they made into row isolation."""
    shared = await find_shared(control)
    if shared is not None:
        await control.execute(_sql("tenant_of_analyst", shared.plane))
        for function in await control.fetchval(sql["recording_functions"]):
            await control.execute(_sql(function, shared.plane))
            await control.execute(_sql("give_to_recorder", shared.plane, function=function))
        await control.execute(_sql("open_control_plane", shared.plane))
        await control.execute(_sql("take_tables_from_analysts", shared.plane))
        await _drop_analysts_views(control, shared.plane)
        # The tenants' schema may still be behind.
        await _create_analysts_views(control, shared.plane, views=migrations.render_possible_views())


async def migrate_shared(control: ControlConnection, shared: SharedSchema, *, back: bool = False) -> None:
    """Bring the schema of all tenants to head, or with `back` to the revision before it, in one transaction. SchemaOutdated."""
    plane = shared.plane
    async with control.transaction():
        row = await control.fetchrow(sql["claim_shared"])
        if row is None or not migrations.known_revision("tenant", row["revision"]):
            raise SchemaOutdated(reason="the tenants' schema is at a revision that this release does not know", hint="run a newer release")
        digest = REBUILD if back else migrations.views_digest()
        try:
            step = shared_way(row["revision"], plane, back=back)
        except LookupError as error:
            raise SchemaOutdated(reason=str(error), hint="revisions that are run online are for schemas of their own") from error
        if (row["revision"], row["views_digest"]) == (step.to, digest):
            return
        await control.execute(BRIEF_LOCKS)
        await _drop_analysts_views(control, plane)
        # As the operator, its statements work on the rows of all tenants.
        await control.execute(
            f"SET LOCAL billingwatch.operator = 'on'; SET LOCAL search_path = {plane.schema_name};\n"
            f"{migrations.render_drop_views()}\n{step.text}\n{migrations.render_shared_views(possible=back)};\nSET LOCAL search_path = pg_catalog"
        )
        await let_read(control, plane.schema_name, [plane.scope_role])
        await _create_analysts_views(control, plane, views=migrations.render_possible_views() if back else migrations.render_views())
        await control.execute(sql["set_revision"], step.to, digest)
        await announce_change(control)  # all of them have another revision


async def _superuser(control: ControlConnection) -> bool:
    found: bool = await control.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    return found


async def _drop_analysts_views(control: ControlConnection, plane: SharedPlane) -> None:
    """Drop the views that analysts read, so that the tables may change; part of the caller's transaction."""
    await control.execute(_sql("drop_analysts_views", plane))


async def _create_analysts_views(control: ControlConnection, plane: SharedPlane, *, views: str) -> None:
    """Create a view over each table that analysts read, and `views` over those; part of the caller's transaction."""
    await let_read(control, plane.schema_name, [plane.reader_role])
    parts = [_sql(name, plane) for name in ("create_analysts_schema", "create_table_views")]
    await control.execute(";\n".join([*parts, views, _sql("close_analysts_schema", plane)]))


def _sql(name: str, plane: SharedPlane, **names: str) -> str:
    return sql[name].format(
        schema=plane.schema_name,
        scope=plane.scope_role,
        recorder=plane.recorder_role,
        analysts=plane.analysts_role,
        reader=plane.reader_role,
        tables="{" + ",".join(ANALYST_TABLES) + "}",
        **names,
    )
