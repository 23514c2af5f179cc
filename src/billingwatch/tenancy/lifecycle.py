"""A tenant's state and its webhook URL: pause, resume, rotate."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from billingwatch.errors import RemovalUnfinished, TenantNotFound
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.audit import OPERATOR, record_change
from billingwatch.tenancy.tenants import Status, TenantId, new_webhook_token, token_hash

sql = load_statements(__file__, "lifecycle.sql")


class LockedTenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant whose row is locked until the end of the transaction."""

    tenant_id: TenantId
    name: str
    status: Status
    paused_at: datetime | None
    pending: int


class StateChange(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a pause or a resume; `changed` is false when the tenant was in that state before."""

    tenant_id: TenantId
    name: str
    status: Status
    changed: bool
    paused_at: datetime | None
    pending: int


class RotatedUrl(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's new webhook token, which is not stored; until when the previous one is accepted, or null."""

    tenant_id: TenantId
    name: str
    webhook_token: str
    previous_until: datetime | None


async def lock_tenant(control: ControlConnection, name: str) -> LockedTenant:
    """Lock a tenant's row against other changes. Raises TenantNotFound, RemovalUnfinished."""
    row = await control.fetchrow(sql["lock_tenant"], name)
    if row is None:
        raise TenantNotFound(name=name)
    if row["status"] == "removing":
        raise RemovalUnfinished(name=name)
    return LockedTenant(**dict(row))


async def pause_tenant(control: ControlConnection, name: str, *, as_of: datetime) -> StateChange:
    """Stop processing of the tenant; its events are recorded and wait. Raises TenantNotFound, RemovalUnfinished."""
    async with control.transaction():
        tenant = await lock_tenant(control, name)
        if tenant.status == "paused":
            return _state(tenant, "paused", changed=False)
        paused_at: datetime = await control.fetchval(sql["pause"], tenant.tenant_id, as_of)
        await record_change(control, tenant.tenant_id, OPERATOR, "tenant.paused", {"before": "active", "after": "paused"})
    return _state(msgspec.structs.replace(tenant, paused_at=paused_at), "paused", changed=True)


async def resume_tenant(control: ControlConnection, name: str, *, as_of: datetime) -> StateChange:
    """Process the tenant again, first the events that wait. Raises TenantNotFound, RemovalUnfinished."""
    async with control.transaction():
        tenant = await lock_tenant(control, name)
        if tenant.status == "active":
            return _state(tenant, "active", changed=False)
        await control.execute(sql["resume"], tenant.tenant_id, as_of)
        await record_change(control, tenant.tenant_id, OPERATOR, "tenant.resumed", {"before": "paused", "after": "active"})
    return _state(tenant, "active", changed=True)


async def rotate_webhook_url(control: ControlConnection, name: str, *, grace: timedelta) -> RotatedUrl:
    """Replace the webhook token. The previous one is accepted for `grace`, and older ones are refused at once.

    Raises TenantNotFound, RemovalUnfinished.
    """
    token = new_webhook_token()
    async with control.transaction():
        tenant = await lock_tenant(control, name)
        until: datetime | None = await control.fetchval(sql["rotate_token"], tenant.tenant_id, token_hash(token), grace)
        detail = {"previous_until": None if until is None else until.isoformat()}
        await record_change(control, tenant.tenant_id, OPERATOR, "tenant.url_rotated", detail)
    return RotatedUrl(tenant_id=tenant.tenant_id, name=name, webhook_token=token, previous_until=until)


def _state(tenant: LockedTenant, status: Status, *, changed: bool) -> StateChange:
    return StateChange(
        tenant_id=tenant.tenant_id,
        name=tenant.name,
        status=status,
        changed=changed,
        paused_at=tenant.paused_at,
        pending=tenant.pending,
    )
