"""The registry: which tenant a webhook token or an API key belongs to, from memory when it was asked before.

Postgres announces every change of a tenant on a channel; a cached answer is dropped when its tenant changes, all of them when the
announcements may have been missed, and each after a while in any case.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import asyncpg
import msgspec
import structlog

from billingwatch.errors import DatabaseUnavailable, TenantNotFound
from billingwatch.postgres.connections import UNAVAILABLE, ControlConnection, discard, open_connection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.lanes import Lane, answer_within, control_plane
from billingwatch.tenancy.sealing import Seal
from billingwatch.tenancy.tenants import DetectorSetting, Mute, Tenant, TenantId, token_hash

log = structlog.get_logger()
sql = load_statements(__file__, "registry.sql")

CHANNEL = "billingwatch_tenants"
CACHE_LIMIT = 50_000  # answers; 10,000 tenants with tokens, keys and ids, and room for wrong guesses
CACHE_SECONDS = 60  # an answer's age at most, should an announcement be missed
LISTEN_RETRY = 1.0  # seconds


class _Key(NamedTuple):
    """What a tenant is looked up by: one of these; the parameters of the statement, in its order."""

    webhook_token: bytes | None = None
    api_key: bytes | None = None
    tenant_id: int | None = None
    name: str | None = None


class Registry:
    """Cached look-ups of tenants. Unknown tokens are remembered too, so that guessing does not reach the database each time."""

    def __init__(self, lane: Lane, seal: Seal, dsn: str) -> None:
        self._lane = lane
        self._seal = seal
        self._dsn = dsn
        self._answers: OrderedDict[_Key, tuple[float, Tenant | None]] = OrderedDict()
        self._asking: dict[_Key, asyncio.Future[Tenant | None]] = {}
        self._generation = 0
        self._listener: asyncio.Task[None] | None = None

    async def by_webhook_token(self, token: str) -> Tenant | None:
        return await self._find(_Key(webhook_token=token_hash(token)))

    async def by_api_key(self, key: str) -> Tenant | None:
        return await self._find(_Key(api_key=token_hash(key)))

    async def by_tenant_id(self, tenant_id: int) -> Tenant | None:
        return await self._find(_Key(tenant_id=tenant_id))

    def start(self) -> None:
        """Follow changes that other processes make."""
        self._listener = asyncio.create_task(self._listen(), name="registry listener")

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)

    def forget(self, tenant_id: int | None = None) -> None:
        """Drop what is known of a tenant, or of all; answers on their way are not kept either, and who asks from now on asks anew."""
        self._generation += 1
        self._asking.clear()
        if tenant_id is None:
            self._answers.clear()
            return
        # A new tenant may turn a remembered "unknown" into an answer.
        stale = [key for key, (_, tenant) in self._answers.items() if tenant is None or tenant.tenant_id == tenant_id]
        for key in stale:
            del self._answers[key]

    async def _find(self, key: _Key) -> Tenant | None:
        loop = asyncio.get_running_loop()
        known = self._answers.get(key)
        if known is not None and loop.time() - known[0] < CACHE_SECONDS:
            self._answers.move_to_end(key)
            return known[1]
        if (asking := self._asking.get(key)) is not None:
            return await asyncio.shield(asking)
        future: asyncio.Future[Tenant | None] = asyncio.ensure_future(self._ask(key))
        self._asking[key] = future
        future.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(future)

    def _answered(self, key: _Key, asking: asyncio.Future[Tenant | None]) -> None:
        if self._asking.get(key) is asking:
            del self._asking[key]

    async def _ask(self, key: _Key) -> Tenant | None:
        generation = self._generation
        async with answer_within(), control_plane(self._lane) as connection:
            row = await connection.fetchrow(sql["find_tenant"], *key)
        tenant = None if row is None else tenant_from_row(row, self._seal)
        if generation == self._generation:
            self._answers[key] = (asyncio.get_running_loop().time(), tenant)
            if len(self._answers) > CACHE_LIMIT:
                self._answers.popitem(last=False)
        return tenant

    async def _listen(self) -> None:
        while True:
            connection: asyncpg.Connection | None = None
            try:
                connection = await open_connection(self._dsn, "billingwatch registry")
                lost = asyncio.Event()
                connection.add_termination_listener(lambda _, lost=lost: lost.set())
                await connection.add_listener(CHANNEL, self._on_change)
                self.forget()
                await lost.wait()
            except (DatabaseUnavailable, *UNAVAILABLE, asyncpg.PostgresError) as error:
                log.debug("registry.listener_lost", error=str(error))
            finally:
                if connection is not None:
                    await discard(connection)
            await asyncio.sleep(LISTEN_RETRY)

    def _on_change(self, *arguments: object) -> None:
        payload = arguments[-1]
        self.forget(int(payload) if isinstance(payload, str) and payload.isdecimal() else None)


async def announce_change(control: ControlConnection, tenant_id: int | None = None) -> None:
    """Let every process forget what it knows of a tenant, or of all, once this transaction is committed."""
    await control.execute(sql["announce_change"], CHANNEL, tenant_id)


async def load_tenant(control: ControlConnection, seal: Seal, name: str) -> Tenant:
    """The tenant of that name, from the database; TenantNotFound."""
    row = await control.fetchrow(sql["find_tenant"], *_Key(name=name))
    if row is None:
        raise TenantNotFound(name=name)
    return tenant_from_row(row, seal)


def tenant_from_row(row: asyncpg.Record, seal: Seal) -> Tenant:
    """Read a row of one of the registry's statements."""
    ciphertexts: Sequence[bytes] = row["ciphertexts"]
    return Tenant(
        tenant_id=TenantId(row["tenant_id"]),
        name=row["name"],
        schema_name=row["schema_name"],
        revision=row["revision"],
        mode=row["mode"],
        status=row["status"],
        rate_limit=row["rate_limit"],
        secrets=tuple(seal.decrypt(ciphertext) for ciphertext in ciphertexts),
        detector_settings=msgspec.convert(row["detector_settings"] or (), tuple[DetectorSetting, ...]),
        mutes=msgspec.convert(row["mutes"] or (), tuple[Mute, ...]),
    )
