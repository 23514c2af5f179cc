"""What a tenant's people set of its detectors: settings and mutes, changed one at a time, audited, and announced to every process.

This room keeps them and does not know what they mean: what a setting may become, the caller says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import msgspec

from billingwatch.errors import InputInvalid, MuteNotFound, MutesFull, TenantNotFound
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.audit import record_change
from billingwatch.tenancy.tenants import DetectorSetting, Mute, Tenant

sql = load_statements(__file__, "detector_settings.sql")

MUTE_ID_MAX = 2**31 - 1
MUTES_LIMIT = 500  # per tenant; every process holds them in memory, and looks through them for each anomaly


class MuteWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A mute to be added; None leaves that side open, `until` is exclusive."""

    detector: str | None = None
    subject: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    reason: str


class MuteRow(Mute, frozen=True, kw_only=True):
    """A mute as people see it."""

    created_at: datetime


async def list_settings(control: ControlConnection, tenant: Tenant) -> tuple[DetectorSetting, ...]:
    """What the tenant set, by detector; those that work as they come are not here."""
    return tuple(DetectorSetting(**dict(row)) for row in await control.fetch(sql["list_settings"], tenant.tenant_id))


async def change_setting(
    control: ControlConnection, tenant: Tenant, detector: str, change: Callable[[DetectorSetting], DetectorSetting], *, actor: str
) -> DetectorSetting:
    """Replace a setting by what `change` makes of it. What `change` raises leaves all as it was; no change leaves no trace."""
    async with _changing(control, tenant):
        row = await control.fetchrow(sql["get_setting"], tenant.tenant_id, detector)
        before = DetectorSetting(detector=detector, active=True, thresholds="{}") if row is None else DetectorSetting(**dict(row))
        after = change(before)
        if _facts(after) == _facts(before):
            return before
        if after.active and not msgspec.json.decode(after.thresholds):
            await control.execute(sql["delete_setting"], tenant.tenant_id, detector)
        else:
            await control.execute(sql["put_setting"], tenant.tenant_id, detector, after.active, after.thresholds)
        await record_change(
            control, tenant.tenant_id, actor, "detector.set", {"detector": detector, "before": _facts(before), "after": _facts(after)}
        )
    return after


async def list_mutes(control: ControlConnection, tenant: Tenant) -> list[MuteRow]:
    """Oldest first."""
    return [MuteRow(**dict(row)) for row in await control.fetch(sql["list_mutes"], tenant.tenant_id)]


async def add_mute(control: ControlConnection, tenant: Tenant, wanted: MuteWanted, *, actor: str) -> MuteRow:
    """Keep anomalies quiet from now on. InputInvalid, MutesFull."""
    if wanted.since is not None and wanted.until is not None and wanted.until <= wanted.since:
        raise InputInvalid(reason="`until` must be later than `since`")
    async with _changing(control, tenant):
        if await control.fetchval(sql["count_mutes"], tenant.tenant_id) >= MUTES_LIMIT:
            raise MutesFull(limit=MUTES_LIMIT)
        [row] = await control.fetch(sql["insert_mute"], tenant.tenant_id, *msgspec.structs.astuple(wanted))
        await record_change(control, tenant.tenant_id, actor, "mute.added", {"before": None, "after": msgspec.to_builtins(dict(row))})
    return MuteRow(**dict(row))


async def remove_mute(control: ControlConnection, tenant: Tenant, mute_id: int, *, actor: str) -> MuteRow:
    """Hear again what was muted; return what it was. MuteNotFound."""
    async with _changing(control, tenant):
        row = await control.fetchrow(sql["delete_mute"], tenant.tenant_id, mute_id)
        if row is None:
            raise MuteNotFound(mute_id=mute_id)
        await record_change(control, tenant.tenant_id, actor, "mute.removed", {"before": msgspec.to_builtins(dict(row)), "after": None})
    return MuteRow(**dict(row))


@asynccontextmanager
async def _changing(control: ControlConnection, tenant: Tenant) -> AsyncIterator[None]:
    async with control.transaction():
        if await control.fetchrow(sql["lock_tenant"], tenant.tenant_id) is None:
            raise TenantNotFound(name=tenant.name)
        yield


def _facts(setting: DetectorSetting) -> dict[str, object]:
    return {"active": setting.active, "thresholds": msgspec.json.decode(setting.thresholds)}
