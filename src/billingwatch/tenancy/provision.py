"""Provisioning: a tenant's control row, webhook token, first API key and, in schema isolation, schema, tables and views, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from billingwatch.errors import SecretNotFound, SecretsFull, TenantNameTaken, TenantNotFound
from billingwatch.postgres import migrations
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.changes import announce_change
from billingwatch.tenancy.isolation import checked_schema_name, isolation_of, new_schema_name
from billingwatch.tenancy.keys import FIRST_NAME, insert_key
from billingwatch.tenancy.master_key import encrypt_secret
from billingwatch.tenancy.sealing import Seal
from billingwatch.tenancy.tenants import (
    Mode,
    Status,
    TenantId,
    checked_name,
    checked_secret,
    new_webhook_token,
    token_hash,
)

sql = load_statements(__file__, "provision.sql")

LIVE_SECRETS = 2  # Stripe signs with the old and the new secret during a roll, never with more


class Provisioned(msgspec.Struct, frozen=True, kw_only=True):
    """What provisioning hands out; the token and the key are not stored and cannot be shown again."""

    tenant_id: TenantId
    name: str
    schema_name: str
    mode: Mode
    webhook_token: str
    api_key: str


class TenantRow(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant as an operator sees it."""

    tenant_id: TenantId
    name: str
    schema_name: str
    mode: Mode
    status: Status
    revision: str
    views_digest: str
    rate_limit: int | None
    created_at: datetime
    secrets: int
    api_keys: int
    pending: int
    dead_letters: int
    paused_at: datetime | None
    """Null unless it is paused."""
    previous_url_until: datetime | None
    """Until when the webhook URL before the last rotation is accepted."""
    refused: int
    last_refused_at: datetime | None
    last_refusal: str | None
    ignored: int
    """Events recorded and not processed because of their mode."""
    last_ignored_at: datetime | None


class SecretRow(msgspec.Struct, frozen=True, kw_only=True):
    """A signing secret, without the secret."""

    secret_id: int
    created_at: datetime


async def provision(
    control: ControlConnection, seal: Seal, name: str, *, mode: Mode = "live", secrets: Sequence[str] = (), rate_limit: int | None = None
) -> Provisioned:
    """Create a tenant: everything, or nothing is left behind.

    Raises TenantNameInvalid, TenantNameTaken, SecretInvalid.
    """
    checked_name(name)
    checked = [checked_secret(secret) for secret in secrets]
    token = new_webhook_token()
    try:
        async with control.transaction():
            [row] = await control.fetch(
                sql["insert_tenant"],
                name,
                new_schema_name(),
                mode,
                migrations.head("tenant"),
                migrations.views_digest(),
                token_hash(token),
                rate_limit,
            )
            tenant_id, schema_name = TenantId(row["tenant_id"]), checked_schema_name(row["schema_name"])
            for secret in checked:
                await control.execute(sql["insert_secret"], tenant_id, await encrypt_secret(control, seal, secret))
            key = await insert_key(control, tenant_id, FIRST_NAME)
            if isolation_of(schema_name) == "schema":
                await control.execute(f"CREATE SCHEMA {schema_name}")
                await control.execute(
                    f"SET LOCAL search_path = {schema_name};\n{migrations.render_upgrade('tenant')}\n{migrations.render_views()}"
                )
            await announce_change(control, tenant_id)
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name == "tenants_name_key":
            raise TenantNameTaken(name=name) from error
        raise
    return Provisioned(tenant_id=tenant_id, name=name, schema_name=schema_name, mode=mode, webhook_token=token, api_key=key.api_key)


async def list_tenants(control: ControlConnection) -> list[TenantRow]:
    return [TenantRow(**dict(row)) for row in await control.fetch(sql["list_tenants"], None)]


async def find_tenant(control: ControlConnection, name: str) -> TenantRow:
    """The tenant of that name; TenantNotFound."""
    row = await control.fetchrow(sql["list_tenants"], name)
    if row is None:
        raise TenantNotFound(name=name)
    return TenantRow(**dict(row))


async def add_secret(control: ControlConnection, seal: Seal, name: str, secret: str) -> SecretRow:
    """Give a tenant one more signing secret; two can live at once, for a roll. TenantNotFound, SecretInvalid, SecretsFull."""
    checked_secret(secret)
    async with control.transaction():
        tenant = await _locked(control, name)
        if len(await control.fetch(sql["list_secrets"], tenant.tenant_id)) >= LIVE_SECRETS:
            raise SecretsFull(name=name)
        [row] = await control.fetch(sql["insert_secret"], tenant.tenant_id, await encrypt_secret(control, seal, secret))
        await announce_change(control, tenant.tenant_id)
    return SecretRow(**dict(row))


async def list_secrets(control: ControlConnection, name: str) -> list[SecretRow]:
    tenant = await find_tenant(control, name)
    return [SecretRow(**dict(row)) for row in await control.fetch(sql["list_secrets"], tenant.tenant_id)]


async def remove_secret(control: ControlConnection, name: str, secret_id: int) -> None:
    """Forget a signing secret. TenantNotFound, SecretNotFound."""
    async with control.transaction():
        tenant = await _locked(control, name)
        if await control.execute(sql["delete_secret"], tenant.tenant_id, secret_id) == "DELETE 0":
            raise SecretNotFound(name=name, secret_id=secret_id)
        await announce_change(control, tenant.tenant_id)


async def _locked(control: ControlConnection, name: str) -> TenantRow:
    await control.execute(sql["lock_tenant"], name)
    return await find_tenant(control, name)
