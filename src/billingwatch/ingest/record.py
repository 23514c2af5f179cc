"""Writing events into their tenants' tables: one durable call for many events.

An event that PostgreSQL's json refuses is written alone, as bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from billingwatch.ingest.envelope import Disposition, Envelope
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.tenants import Tenant

sql = load_statements(__file__, "record.sql")

LOCK_PATIENCE = "200ms"  # how long a call waits for a lock; a migration that waits before it gives up first

CONTENT_REFUSED = (asyncpg.DataError, asyncpg.ProgramLimitExceededError)
"""Errors of PostgreSQL's json: not JSON, a NUL byte, not UTF-8 (DataError); nested deeper than its stack allows."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A verified event to be written into the tenant's `events`.

    `signed_at` is None for events that did not come through the webhook.
    """

    tenant: Tenant
    envelope: Envelope
    disposition: Disposition
    payload: str | bytes
    """The body as signed: text, or bytes when it is not UTF-8."""
    received_at: datetime
    signed_at: datetime | None

    @property
    def key(self) -> tuple[int, str]:
        return (self.tenant.tenant_id, self.envelope.event_id)


def signed_text(body: bytes) -> str | bytes:
    """Return a body as text, or unchanged when it is not UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body


async def record_events(connection: ControlConnection, deliveries: Sequence[Delivery]) -> list[bool]:
    """Write deliveries, and return for each whether it is new. The same event twice is new once.

    The deliveries are durable when this returns.

    Raises one of CONTENT_REFUSED, and writes none of them, when PostgreSQL's json refuses a payload.
    """
    times: dict[tuple[int, str], int] = {}
    first: dict[tuple[int, str], Delivery] = {}
    for delivery in deliveries:
        times[delivery.key] = times.get(delivery.key, 0) + 1
        first.setdefault(delivery.key, delivery)
    # In one order everywhere, so that two processes that record the same events cannot deadlock.
    keys = sorted(first)
    rows = [first[key] for key in keys]
    flags: list[bool] = await connection.fetchval(
        sql["record_events"],
        [row.tenant.tenant_id for row in rows],
        [row.tenant.schema_name for row in rows],
        [row.envelope.event_id for row in rows],
        [row.envelope.type for row in rows],
        [row.envelope.api_version for row in rows],
        [row.envelope.livemode for row in rows],
        [row.envelope.account for row in rows],
        [row.envelope.object_id for row in rows],
        [row.envelope.occurred_at or row.received_at for row in rows],
        [row.signed_at for row in rows],
        [row.received_at for row in rows],
        [times[key] for key in keys],
        [row.disposition for row in rows],
        [row.payload for row in rows],
        LOCK_PATIENCE,
    )
    is_new = dict(zip(keys, flags, strict=True))
    return [is_new.pop(delivery.key, False) for delivery in deliveries]


async def record_bodies(connection: ControlConnection, deliveries: Sequence[Delivery]) -> list[bool]:
    """Write deliveries with their bodies as bytes, one call each; return for each whether it is new."""
    return [await _record_body(connection, delivery) for delivery in deliveries]


async def record_all(connection: ControlConnection, deliveries: Sequence[Delivery]) -> list[bool]:
    """Write deliveries, and those that json refuses as bytes. Each part is durable when its call returns."""
    try:
        return await record_events(connection, deliveries)
    except CONTENT_REFUSED:
        if len(deliveries) == 1:
            return await record_bodies(connection, deliveries)
    middle = len(deliveries) // 2
    return [*await record_all(connection, deliveries[:middle]), *await record_all(connection, deliveries[middle:])]


async def _record_body(connection: ControlConnection, delivery: Delivery) -> bool:
    envelope, payload = delivery.envelope, delivery.payload
    is_new: bool = await connection.fetchval(
        sql["record_body"],
        delivery.tenant.tenant_id,
        delivery.tenant.schema_name,
        envelope.event_id,
        envelope.type,
        envelope.api_version,
        envelope.livemode,
        envelope.account,
        envelope.object_id,
        envelope.occurred_at or delivery.received_at,
        delivery.signed_at,
        delivery.received_at,
        delivery.disposition,
        payload.encode() if isinstance(payload, str) else payload,
        LOCK_PATIENCE,
    )
    return is_new
