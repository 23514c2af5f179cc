"""The control plane's own migration, and what of the fleet is not at this release's revision."""

from __future__ import annotations

import asyncpg
import msgspec
import structlog

from billingwatch.errors import ControlPlaneStays, InputInvalid, MigrationRunning, SchemaOutdated
from billingwatch.postgres import migrations
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.revisions import outdated, way_back
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.isolation import Isolation
from billingwatch.tenancy.shared import check_isolation, create_shared, release_functions, settle_functions

log = structlog.get_logger()
sql = load_statements(__file__, "migrate.sql")


class FleetState(msgspec.Struct, frozen=True, kw_only=True):
    """How many tenants are not at head with this release's views, by what that means."""

    behind: int = 0
    """Work as they are."""
    outdated: int = 0
    """Too old: their events are recorded, and nothing else happens until they are migrated."""
    newer: int = 0
    """A newer release has migrated them."""


async def ensure_control_plane(
    control: ControlConnection, *, isolation: Isolation = "schema", partitions: int = 0, upgrade: bool = False
) -> None:
    """Set up an empty database; bring an older control plane to head if `upgrade`, else raise SchemaOutdated.

    IsolationMismatch when the database was set up with another isolation; RowIsolationNotPermitted, RolesMissing. An upgrade takes no lock that
    it cannot have within seconds: then asyncpg.LockNotAvailableError, and nothing is changed.
    """
    async with control.transaction():
        await control.execute(sql["lock"])
        initialised: bool = await control.fetchval(sql["initialised"])
        revision: str | None = await control.fetchval(sql["revision"]) if initialised else None
        head = migrations.head("control")
        if revision == head:
            await check_isolation(control, isolation)
            return
        if revision is not None:
            check_control_revision(revision)
            if not upgrade:
                raise SchemaOutdated(reason=f"the control plane is at {revision}, this release needs {head}")
            await control.execute(sql["wait_briefly"])
            if await control.fetchval(sql["knows_isolation"]):
                await release_functions(control)
        if text := migrations.render_upgrade("control", revision):
            await control.execute(text)
        await control.execute(sql["set_revision"], head)
        if revision is None and isolation == "row":
            await create_shared(control, partitions)
        await settle_functions(control)
        await check_isolation(control, isolation)


async def take_back_control_plane(control: ControlConnection) -> str:
    """Take back the control plane's last revision; return the one it is at then.

    InputInvalid when it is not at head, MigrationRunning, ControlPlaneStays.
    """
    async with control.transaction():
        await control.execute(sql["lock"])
        if not await control.fetchval(sql["alone"]):
            raise MigrationRunning
        initialised: bool = await control.fetchval(sql["initialised"])
        revision: str | None = await control.fetchval(sql["revision"]) if initialised else None
        head, step = migrations.head("control"), way_back("control")
        if revision != head:
            raise InputInvalid(
                reason=f"the control plane is at {revision or 'nothing'}, and this release can only take {head} back",
                hint="a further step back is for the release before this one",
            )
        await control.execute(sql["wait_briefly"])
        try:
            if await control.fetchval(sql["knows_isolation"]):
                await release_functions(control)
            if step.text:
                await control.execute(step.text)
            if await control.fetchval(sql["knows_isolation"]):
                await settle_functions(control)
        except asyncpg.PostgresError as error:
            raise ControlPlaneStays(revision=head, reason=str(error)) from error
        await control.execute(sql["set_revision"], step.to)
    return step.to


def check_control_revision(revision: str) -> None:
    """SchemaOutdated for a control plane that a newer release has migrated."""
    if not migrations.known_revision("control", revision):
        raise SchemaOutdated(reason=f"the control plane is at {revision}, which this release does not know", hint="run a newer release")


async def fleet_state(control: ControlConnection) -> FleetState:
    """Count the tenants that are not at head."""
    counts = {"behind": 0, "outdated": 0, "newer": 0}
    for row in await control.fetch(sql["tenants_by_revision"], migrations.head("tenant"), migrations.views_digest()):
        known = migrations.known_revision("tenant", row["revision"])
        counts["newer" if not known else "outdated" if outdated(row["revision"]) else "behind"] += row["tenants"]
    return FleetState(**counts)


async def tell_fleet_state(control: ControlConnection) -> None:
    """Log what is behind, as a service does when it starts."""
    state = await fleet_state(control)
    if state.outdated:
        log.error("tenancy.tenants_outdated", tenants=state.outdated, hint="their events are only recorded: run `billingwatch migrate`")
    if state.behind:
        log.warning("tenancy.tenants_behind", tenants=state.behind, head=migrations.head("tenant"), hint="run `billingwatch migrate`")
    if state.newer:
        log.warning("tenancy.tenants_newer", tenants=state.newer, hint="upgrade this process to the release that migrated them")
