"""API keys of a tenant: several, each with a name, a scope and perhaps an end. Only their hashes are stored."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import msgspec

from billingwatch.errors import ApiKeyNameInvalid, ApiKeyNameTaken, ApiKeyNotFound, ApiKeysFull, TenantNotFound
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.audit import OPERATOR, record_change
from billingwatch.tenancy.lifecycle import lock_tenant
from billingwatch.tenancy.tenants import Scope, TenantId, new_api_key, token_hash

sql = load_statements(__file__, "keys.sql")

KEYS_LIMIT = 20  # per tenant, expired ones included
KEY_ID_MAX = 2**31 - 1
HINT_LENGTH = 7  # characters of a key that are stored
FIRST_NAME = "default"  # of the key that provisioning makes
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}")
_KEY_PREFIX = "bw_"


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """An API key as an operator sees it, without the key."""

    key_id: int
    name: str
    hint: str
    scope: Scope
    created_at: datetime
    expires_at: datetime | None
    expired: bool
    last_used_at: datetime | None


class CreatedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new API key; `api_key` is not stored and cannot be shown again."""

    key_id: int
    name: str
    scope: Scope
    expires_at: datetime | None
    api_key: str


async def insert_key(
    control: ControlConnection, tenant_id: TenantId, name: str, *, scope: Scope = "write", expires_in: timedelta | None = None
) -> CreatedKey:
    """Make a key in the caller's transaction."""
    key = new_api_key()
    [row] = await control.fetch(sql["insert_key"], token_hash(key), tenant_id, key[:HINT_LENGTH], name, scope, expires_in)
    return CreatedKey(key_id=row["key_id"], name=name, scope=scope, expires_at=row["expires_at"], api_key=key)


async def create_key(
    control: ControlConnection, tenant: str, name: str, *, scope: Scope = "write", expires_in: timedelta | None = None
) -> CreatedKey:
    """Add a key to a tenant.

    Raises TenantNotFound, RemovalUnfinished, ApiKeyNameInvalid, ApiKeyNameTaken, ApiKeysFull.
    """
    checked_key_name(name)
    async with control.transaction():
        locked = await lock_tenant(control, tenant)
        keys = await _keys_of(control, locked.tenant_id)
        if (holder := next((key for key in keys if key.name.lower() == name.lower()), None)) is not None:
            raise ApiKeyNameTaken(name=tenant, key_name=name, key_id=holder.key_id)
        if len(keys) >= KEYS_LIMIT:
            raise ApiKeysFull(name=tenant, limit=KEYS_LIMIT)
        made = await insert_key(control, locked.tenant_id, name, scope=scope, expires_in=expires_in)
        await record_change(control, locked.tenant_id, OPERATOR, "key.created", _facts(made.key_id, name, scope, made.expires_at))
    return made


async def list_keys(control: ControlConnection, tenant: str) -> list[KeyRow]:
    """Return the tenant's keys, oldest first. Raises TenantNotFound."""
    tenant_id: TenantId | None = await control.fetchval(sql["find_tenant_id"], tenant)
    if tenant_id is None:
        raise TenantNotFound(name=tenant)
    return await _keys_of(control, tenant_id)


async def revoke_key(control: ControlConnection, tenant: str, key_id: int) -> KeyRow:
    """Delete a key, and return what it was. Raises TenantNotFound, RemovalUnfinished, ApiKeyNotFound."""
    async with control.transaction():
        locked = await lock_tenant(control, tenant)
        row = await control.fetchrow(sql["delete_key"], locked.tenant_id, key_id)
        if row is None:
            raise ApiKeyNotFound(name=tenant, key_id=key_id)
        key = KeyRow(**dict(row))
        await record_change(control, locked.tenant_id, OPERATOR, "key.revoked", _facts(key_id, key.name, key.scope, key.expires_at))
    return key


def checked_key_name(name: str) -> str:
    """Return the name if it cannot be mistaken in the audit log. Raises ApiKeyNameInvalid."""
    # An unnamed key goes by its hint there, and the command line by `operator`.
    if not _NAME.fullmatch(name) or name != name.strip() or name.lower() == OPERATOR or name.lower().startswith(_KEY_PREFIX):
        raise ApiKeyNameInvalid(key_name=name)
    return name


async def _keys_of(control: ControlConnection, tenant_id: TenantId) -> list[KeyRow]:
    return [KeyRow(**dict(row)) for row in await control.fetch(sql["list_keys"], tenant_id)]


def _facts(key_id: int, name: str, scope: Scope, expires_at: datetime | None) -> dict[str, object]:
    expires = None if expires_at is None else expires_at.isoformat()
    return {"key_id": key_id, "name": name, "scope": scope, "expires_at": expires}
