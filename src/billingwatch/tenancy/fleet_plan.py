"""What a migration of the fleet would do: who is behind, and whether another run is at it already."""

from __future__ import annotations

import asyncpg
import msgspec

from billingwatch.errors import InputInvalid, TenantNotFound
from billingwatch.postgres import migrations
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.revisions import RevisionUnknown
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.isolation import Isolation
from billingwatch.tenancy.migrate import check_control_revision
from billingwatch.tenancy.shared import SharedSchema, find_shared
from billingwatch.tenancy.tenant_migration import Behind, Mover
from billingwatch.tenancy.tenants import TenantId

sql = load_statements(__file__, "fleet_plan.sql")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a fleet is migrated; `names` are the tenants, all if there are none."""

    jobs: int = 2
    canary: int = 1
    max_failures: int = 20
    names: tuple[str, ...] = ()
    back: bool = False
    isolation: Isolation = "schema"
    partitions: int = 0
    """How a database that nobody has set up will keep its tenants apart, and how the others must."""
    tenants_limit: int = 5000
    """Tenants after which a connection is replaced, because it remembers every table it ever touched."""


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant that a run would migrate; `error` is why the last run could not."""

    name: str
    from_revision: str
    to_revision: str
    online: bool
    error: str | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run would do; `control_from` is None for a database that nobody has set up."""

    control_from: str | None
    control_to: str
    tenants: list[Planned]


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    control_revision: str | None
    alone: bool | None
    """None: there was no need to be."""
    tenants: list[Behind]


async def plan_fleet(control: ControlConnection, options: Options) -> Plan:
    """Tell what `migrate_fleet` would do, and change nothing. What it would raise at once, this raises, too."""
    found = await survey(control, options, dry=True)
    at_head = found.control_revision == migrations.head("control")
    errors = await last_failures(control) if at_head else {}
    if found.tenants and at_head:
        await find_together(control, options)
    mover = Mover("", back=options.back)

    def planned(tenant: Behind) -> Planned:
        try:
            online = any(step.online for step in mover.way(tenant.revision))
        except RevisionUnknown:
            online = False
        return Planned(
            name=tenant.name,
            from_revision=tenant.revision,
            to_revision=mover.wanted,
            online=online,
            error=errors.get(tenant.tenant_id),
        )

    return Plan(
        control_from=found.control_revision,
        control_to=found.control_revision or "" if options.back else migrations.head("control"),
        tenants=[planned(tenant) for tenant in found.tenants],
    )


async def survey(control: ControlConnection, options: Options, *, dry: bool = False) -> Survey:
    """Look who is behind; if there is something to do and it is not `dry`, keep other runs away until `make_way`.

    TenantNotFound, SchemaOutdated, InputInvalid.
    """
    head, names = migrations.head("tenant"), list(options.names) or None
    try:
        rows = await control.fetch(sql["survey"], head, migrations.views_digest(), options.back, names, migrations.head("control"), dry)
        unknown = await control.fetch(sql["unknown_names"], names) if names else []
    except asyncpg.UndefinedTableError:  # nobody has set up the database
        return Survey(control_revision=None, alone=None, tenants=[])
    check_control_revision(rows[0]["control_revision"])
    if unknown:
        raise TenantNotFound(name=unknown[0]["name"])
    if options.back and rows[0]["control_revision"] != migrations.head("control"):
        raise InputInvalid(reason="the control plane is not at this release's revision", hint="take tenants back before the control plane")
    fields = Behind.__struct_fields__
    return Survey(
        control_revision=rows[0]["control_revision"],
        alone=rows[0]["alone"],
        tenants=[Behind(**{field: row[field] for field in fields}) for row in rows if row["tenant_id"] is not None],
    )


async def find_together(control: ControlConnection, options: Options) -> SharedSchema | None:
    """The schema of all tenants; None where each has its own. InputInvalid when only some of those that share it are meant."""
    shared = await find_shared(control)
    if shared is not None and options.names:
        raise InputInvalid(reason="in row isolation all tenants are migrated together", hint="leave out --tenant")
    return shared


async def make_way(control: ControlConnection) -> None:
    """Let other runs begin."""
    await control.execute(sql["unlock"])


async def last_failures(control: ControlConnection) -> dict[TenantId, str]:
    """Why the last run could not migrate a tenant."""
    return {row["tenant_id"]: row["error"] for row in await control.fetch(sql["failures"])}
