"""Reading recorded events."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from billingwatch.errors import EventNotFound
from billingwatch.postgres.connections import TenantConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.tenants import TenantId

sql = load_statements(__file__, "events.sql")

EventStatus = Literal["pending", "processed", "failed", "ignored", "needs_fetch"]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded event without its payload. `error` says why a failed one could not be projected."""

    event_id: str
    type: str
    api_version: str | None
    livemode: bool
    account: str | None
    object_id: str | None
    occurred_at: datetime
    received_at: datetime
    deliveries: int
    status: EventStatus
    error: str | None


class EventWithPayload(Event, frozen=True, kw_only=True):
    """A recorded event with its body as it was signed: in `payload`, or in `body` if PostgreSQL does not accept it as JSON."""

    payload: msgspec.Raw
    body: Annotated[bytes | None, Meta(description="In base64, and then `payload` is null; null for a body that is JSON")]


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events a page shows; `after` is (received_at, event_id) of the last one of the page before."""

    type: str | None = None
    object_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: tuple[datetime, str] | None = None


async def list_events(connection: TenantConnection, tenant_id: TenantId, wanted: EventFilter, *, limit: int) -> list[Event]:
    """Newest first."""
    received_at, event_id = wanted.after or (None, None)
    rows = await connection.fetch(
        sql["list_events"], tenant_id, wanted.type, wanted.object_id, wanted.since, wanted.until, received_at, event_id, limit
    )
    return [Event(**dict(row)) for row in rows]


async def get_event(connection: TenantConnection, tenant_id: TenantId, event_id: str) -> EventWithPayload:
    """One event; EventNotFound."""
    row = await connection.fetchrow(sql["get_event"], tenant_id, event_id)
    if row is None:
        raise EventNotFound(event_id=event_id)
    body = row["body"]
    fields = {"payload": msgspec.Raw(row["payload"].encode()), "body": None if body is None else bytes.fromhex(body.removeprefix("\\x"))}
    return EventWithPayload(**{**dict(row), **fields})
