"""The registry: find the tenant of a webhook token or an API key, and cache the answer.

A cached answer is dropped when its tenant changes, when changes may have been missed, and after `CACHE_SECONDS`.
It ends with the token or the key if that expires earlier.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import NamedTuple

import asyncpg
import msgspec
import structlog

from billingwatch.errors import DatabaseUnavailable, SecretKeyUnusable, TenantNotFound
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.changes import ChangeFeed
from billingwatch.tenancy.lanes import Lane, answer_within, control_plane
from billingwatch.tenancy.sealing import Seal
from billingwatch.tenancy.tenants import ApiKey, DetectorSetting, Mute, Pause, Tenant, TenantId, token_hash

log = structlog.get_logger()
sql = load_statements(__file__, "registry.sql")

BATCH_LIMIT = 100  # look-ups in one statement
CACHE_LIMIT = 50_000  # answers; 10,000 tenants with tokens, keys and ids, and room for wrong guesses
CACHE_SECONDS = 60  # oldest answer in use, also while the changes of tenants cannot be read


class _Key(NamedTuple):
    """What a tenant is looked up by: one of these, in the order of the statement's parameters."""

    webhook_token: bytes | None = None
    api_key: bytes | None = None
    tenant_id: int | None = None
    name: str | None = None


class _Answer(NamedTuple):
    """A cached answer; the times are those of the event loop's clock."""

    cached_at: float
    valid_until: float
    tenant: Tenant | None


class _LookUps:
    """Look-ups of one lane. Those that arrive during a statement share the next one, so that guesses do not hold up others."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._waiting: deque[tuple[_Key, asyncio.Future[asyncpg.Record | None]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def find(self, key: _Key) -> asyncpg.Record | None:
        """Return the tenant's row, or None. Raises DatabaseUnavailable."""
        future: asyncio.Future[asyncpg.Record | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._answer(), name="look-ups")
        return await future

    async def _answer(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_LIMIT))]
            batch = [(key, future) for key, future in batch if not future.done()]
            try:
                rows = await self._fetch([key for key, _ in batch])
            except BaseException as error:  # each waiting request gets it
                reason = error if isinstance(error, Exception) else DatabaseUnavailable(reason="the look-up was interrupted")
                for _, future in batch:
                    if not future.done():
                        future.set_exception(reason)
                if not isinstance(error, Exception):
                    raise
                continue
            for number, (_, future) in enumerate(batch, start=1):
                if not future.done():
                    future.set_result(rows.get(number))

    async def _fetch(self, keys: Sequence[_Key]) -> dict[int, asyncpg.Record]:
        async with answer_within(), control_plane(self._lane) as connection:
            rows = await connection.fetch(sql["find_tenants"], *_columns(keys))
        return {row["number"]: row for row in rows}


class Registry:
    """Cached look-ups of tenants. Unknown tokens are remembered too, so that guessing does not reach the database each time."""

    def __init__(self, lane: Lane, seal: Seal, dsn: str) -> None:
        self.changes = ChangeFeed(Lane(dsn, "changes", statement_timeout=lane.statement_timeout), self.forget)
        self._look_ups = _LookUps(lane)
        self._seal = seal
        self._answers: OrderedDict[_Key, _Answer] = OrderedDict()
        self._keys: dict[int, set[_Key]] = {}  # cached keys of each tenant
        self._asking: dict[_Key, asyncio.Future[Tenant | None]] = {}
        self._generation = 0
        self._forgotten_at = float("-inf")

    async def by_webhook_token(self, token: str) -> Tenant | None:
        """Return the tenant with those of its signing secrets that the secret key decrypts."""
        return await self._find(_Key(webhook_token=token_hash(token)))

    async def by_api_key(self, key: str) -> Tenant | None:
        """Return the tenant with `api_key`; None when the key is unknown or has expired."""
        return await self._find(_Key(api_key=token_hash(key)))

    async def by_tenant_id(self, tenant_id: int) -> Tenant | None:
        return await self._find(_Key(tenant_id=tenant_id))

    def start(self) -> None:
        """Follow changes that other processes make."""
        self.changes.start()

    async def close(self) -> None:
        await self.changes.close()

    def forget(self, *tenant_ids: int) -> None:
        """Drop the cached answers about the given tenants; without an id, all answers.

        An answer that is being read at this moment is not cached.

        Cached answers "unknown" end too: one of the changes may be a new tenant. They are not removed one by one.
        """
        self._generation += 1
        self._forgotten_at = asyncio.get_running_loop().time()
        self._asking.clear()
        if not tenant_ids:
            self._answers.clear()
            self._keys.clear()
            return
        for tenant_id in tenant_ids:
            for key in self._keys.pop(tenant_id, ()):
                del self._answers[key]

    async def _find(self, key: _Key) -> Tenant | None:
        loop = asyncio.get_running_loop()
        known = self._answers.get(key)
        if known is not None and self._fresh(known, loop.time()):
            self._answers.move_to_end(key)
            return known.tenant
        if (asking := self._asking.get(key)) is not None:
            return await asyncio.shield(asking)
        future: asyncio.Future[Tenant | None] = asyncio.ensure_future(self._ask(key))
        self._asking[key] = future
        future.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(future)

    def _fresh(self, answer: _Answer, now: float) -> bool:
        cached_at, valid_until, tenant = answer
        # Strictly later: uvloop's clock stands still within one turn of the loop.
        return now - cached_at < CACHE_SECONDS and now < valid_until and (tenant is not None or cached_at > self._forgotten_at)

    def _answered(self, key: _Key, asking: asyncio.Future[Tenant | None]) -> None:
        if self._asking.get(key) is asking:
            del self._asking[key]

    async def _ask(self, key: _Key) -> Tenant | None:
        generation, asked_at = self._generation, asyncio.get_running_loop().time()
        async with answer_within():
            row = await self._look_ups.find(key)
        # Only deliveries need the secrets: a secret that cannot be decrypted must not fail API calls.
        tenant = None if row is None else tenant_from_row(row, None if key.webhook_token is None else self._seal)
        if generation == self._generation:
            now = asyncio.get_running_loop().time()
            expires_in = float("inf") if row is None or row["valid_for"] is None else row["valid_for"]
            # Counted from before the query, so that the cached answer ends no later than what it answers for.
            self._remember(key, _Answer(now, asked_at + expires_in, tenant))
        return tenant

    def _remember(self, key: _Key, answer: _Answer) -> None:
        self._drop(key)
        self._answers[key] = answer
        tenant = answer.tenant
        if tenant is not None:
            self._keys.setdefault(tenant.tenant_id, set()).add(key)
        if len(self._answers) > CACHE_LIMIT:
            self._drop(next(iter(self._answers)))

    def _drop(self, key: _Key) -> None:
        answer = self._answers.pop(key, None)
        if answer is not None and answer.tenant is not None:
            keys = self._keys[answer.tenant.tenant_id]
            keys.discard(key)
            if not keys:
                del self._keys[answer.tenant.tenant_id]


async def load_tenant(control: ControlConnection, seal: Seal | None, name: str) -> Tenant:
    """Read the tenant of that name from the database; without a seal it has no secrets. Raises TenantNotFound."""
    row = await control.fetchrow(sql["find_tenants"], *_columns([_Key(name=name)]))
    if row is None:
        raise TenantNotFound(name=name)
    return tenant_from_row(row, seal)


def _columns(keys: Sequence[_Key]) -> list[list[object]]:
    return [[key[column] for key in keys] for column in range(len(_Key._fields))]


def tenant_from_row(row: asyncpg.Record, seal: Seal | None) -> Tenant:
    """Read a row of one of the registry's statements; without a seal no secret is decrypted."""
    secrets, unreadable = _decrypted(row, seal)
    return Tenant(
        tenant_id=TenantId(row["tenant_id"]),
        name=row["name"],
        schema_name=row["schema_name"],
        revision=row["revision"],
        mode=row["mode"],
        status=row["status"],
        rate_limit=row["rate_limit"],
        secrets=secrets,
        detector_settings=msgspec.convert(row["detector_settings"] or (), tuple[DetectorSetting, ...]),
        mutes=msgspec.convert(row["mutes"] or (), tuple[Mute, ...]),
        pause=None if row["paused_at"] is None else Pause(paused_at=row["paused_at"], resumed_at=row["resumed_at"]),
        unreadable_secrets=unreadable,
        api_key=None
        if row["key_id"] is None
        else ApiKey(key_id=row["key_id"], name=row["key_name"], hint=row["key_hint"], scope=row["key_scope"]),
    )


def _decrypted(row: asyncpg.Record, seal: Seal | None) -> tuple[tuple[str, ...], int]:
    """Return the secrets, and how many could not be decrypted."""
    if seal is None:
        return (), 0
    ciphertexts: Sequence[bytes] = row["ciphertexts"]
    secrets: list[str] = []
    for ciphertext in ciphertexts:
        try:
            secrets.append(seal.decrypt(ciphertext))
        except SecretKeyUnusable:
            continue
    if unreadable := len(ciphertexts) - len(secrets):
        log.error("registry.secrets_undecryptable", tenant=row["name"], secrets=unreadable, hint=SecretKeyUnusable.hint)
    return tuple(secrets), unreadable
