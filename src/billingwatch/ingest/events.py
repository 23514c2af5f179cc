"""Reading recorded events."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from billingwatch.clock import EARLIEST, LATEST
from billingwatch.errors import EventNotFound
from billingwatch.postgres.connections import TenantConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.tenants import TenantId

sql = load_statements(__file__, "events.sql")

SCAN_LIMIT = 2000  # rows; a few milliseconds of a read lane

EventKey: TypeAlias = tuple[datetime, str]
"""(received_at, event_id): the order of a listing."""
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
    """Which events a page lists; `after` is the key of the last row that the page before read."""

    type: str | None = None
    object_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: EventKey | None = None


async def list_events(
    connection: TenantConnection,
    tenant_id: TenantId,
    wanted: EventFilter,
    *,
    limit: int,
    floor: EventKey | None = None,
) -> list[Event]:
    """Return the newest events first, none older than `floor`."""
    rows = await connection.fetch(
        sql["list_events"],
        tenant_id,
        wanted.type,
        wanted.object_id,
        *_bounds(wanted),
        *(floor or (EARLIEST, "")),
        limit,
    )
    return [Event(**dict(row)) for row in rows]


async def page_events(
    connection: TenantConnection, tenant_id: TenantId, wanted: EventFilter, *, limit: int
) -> tuple[list[Event], EventKey | None]:
    """Return a page and the `after` of the next one, None on the last.

    No index serves `type` and `object_id`. A page that filters by them reads at most SCAN_LIMIT rows, so it can be
    short or empty.
    """
    floor = None
    if wanted.type is not None or wanted.object_id is not None:
        row = await connection.fetchrow(sql["find_scan_floor"], *_bounds(wanted), SCAN_LIMIT - 1)
        floor = None if row is None else (row["received_at"], row["event_id"])
    events = await list_events(connection, tenant_id, wanted, limit=limit, floor=floor)
    if len(events) == limit:
        return events, (events[-1].received_at, events[-1].event_id)
    return events, floor


async def get_event(connection: TenantConnection, tenant_id: TenantId, event_id: str) -> EventWithPayload:
    """One event; EventNotFound."""
    row = await connection.fetchrow(sql["get_event"], tenant_id, event_id)
    if row is None:
        raise EventNotFound(event_id=event_id)
    body = row["body"]
    fields = {"payload": msgspec.Raw(row["payload"].encode()), "body": None if body is None else bytes.fromhex(body.removeprefix("\\x"))}
    return EventWithPayload(**{**dict(row), **fields})


def _bounds(wanted: EventFilter) -> tuple[datetime, datetime, datetime, str]:
    return wanted.since or EARLIEST, wanted.until or LATEST, *(wanted.after or (LATEST, ""))
