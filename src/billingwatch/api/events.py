"""`/events`: what Stripe delivered to the tenant."""

from typing import Annotated

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromQuery, PathParameter, QueryParameter

from billingwatch.api.access import TenantAccess
from billingwatch.api.openapi import problems
from billingwatch.api.pages import INSTANT, LIMIT_DEFAULT, LIMIT_MAX, decode_cursor, encode_cursor, read_instant
from billingwatch.ingest.events import Event, EventFilter, EventWithPayload, get_event, page_events

Word = Annotated[str | None, QueryParameter(pattern=r"^[!-~]{1,255}$")]


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first. Send `next_cursor` as `cursor` for the next page; it is null on the last.

    A page that filters by `type` or `object_id` reads at most 2,000 events. It can be short or empty and not be the last.
    """

    events: list[Event]
    next_cursor: str | None


@get("/events", tags=["events"], summary="List recorded events, newest first", responses=problems())
async def list_events_page(
    access: NamedDependency[TenantAccess],
    event_type: Annotated[str | None, QueryParameter(name="type", pattern=r"^[!-~]{1,255}$")] = None,
    object_id: Word = None,
    since: Annotated[str | None, QueryParameter(description="Received at or after", schema_extra=INSTANT)] = None,
    until: Annotated[str | None, QueryParameter(description="Received before", schema_extra=INSTANT)] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=LIMIT_MAX)] = LIMIT_DEFAULT,
    cursor: FromQuery[str | None] = None,
) -> EventPage:
    wanted = EventFilter(
        type=event_type,
        object_id=object_id,
        since=read_instant("since", since),
        until=read_instant("until", until),
        after=decode_cursor(cursor),
    )
    async with access.reading() as connection:
        events, after = await page_events(connection, access.tenant.tenant_id, wanted, limit=limit)
    return EventPage(events=events, next_cursor=encode_cursor(*after) if after else None)


@get("/events/{event_id:str}", tags=["events"], summary="One event, with its payload as received", responses=problems(404))
async def show_event(
    access: NamedDependency[TenantAccess], event_id: Annotated[str, PathParameter(pattern=r"^[!-~]{1,255}$")]
) -> EventWithPayload:
    async with access.reading() as connection:
        return await get_event(connection, access.tenant.tenant_id, event_id)
