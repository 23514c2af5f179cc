"""The audit log of tenants: who changed what."""

from __future__ import annotations

from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.changes import announce_change
from billingwatch.tenancy.tenants import TenantId

sql = load_statements(__file__, "audit.sql")

OPERATOR = "operator"  # actor of the command line; the actor of an API call is the name or the hint of its key


async def record_change(control: ControlConnection, tenant_id: TenantId, actor: str, action: str, detail: object) -> None:
    """Write a change of a tenant into the audit log, and announce it to every process, in the caller's transaction."""
    await control.execute(sql["insert_audit"], tenant_id, actor, action, detail)
    await announce_change(control, tenant_id)
