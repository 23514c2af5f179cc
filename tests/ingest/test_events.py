"""Reading recorded events: newest first, in stable pages, with what became of each."""

from __future__ import annotations

from datetime import timedelta

import pytest

from billingwatch.errors import EventNotFound
from billingwatch.ingest.events import EventFilter, get_event, list_events
from billingwatch.ingest.record import record_all, record_events

EVERYTHING = EventFilter()


def body(event_id: str, *, kind: str = "charge.succeeded", object_id: str = "ch_1", livemode: str = "true") -> str:
    return (
        f'{{"id": "{event_id}", "object": "event", "type": "{kind}", "created": 1700000000, "livemode": {livemode},'
        f' "data": {{"object": {{"id": "{object_id}"}}}}}}'
    )


@pytest.fixture
async def recorded(control, tenant, make_delivery):
    """evt_0 … evt_9, two to a second."""
    deliveries = [make_delivery(tenant, body=body(f"evt_{number}")) for number in range(10)]
    start = deliveries[0].received_at
    for number, delivery in enumerate(deliveries):
        at = start + timedelta(seconds=number // 2)
        await record_events(control, [make_delivery(tenant, body=delivery.payload, received_at=at)])
    return start


async def names(connection, tenant, wanted=EVERYTHING, limit=100) -> list[str]:
    return [event.event_id for event in await list_events(connection, tenant.tenant_id, wanted, limit=limit)]


async def test_events_are_listed_newest_first(tenant_connection, tenant, recorded):
    assert await names(tenant_connection, tenant) == [f"evt_{number}" for number in reversed(range(10))]


async def test_pages_follow_each_other_without_gap_or_repetition(tenant_connection, control, tenant, recorded, make_delivery):
    seen: list[str] = []
    after = None
    for page in range(5):
        events = await list_events(tenant_connection, tenant.tenant_id, EventFilter(after=after), limit=3)
        seen += [event.event_id for event in events]
        after = (events[-1].received_at, events[-1].event_id) if events else after
        # A newer event in between moves nothing.
        await record_events(control, [make_delivery(tenant, f"evt_new_{page}", received_at=recorded + timedelta(hours=1))])

    assert seen == [f"evt_{number}" for number in reversed(range(10))]


async def test_events_are_found_by_type_object_and_time(tenant_connection, control, tenant, recorded, make_delivery):
    await record_events(control, [make_delivery(tenant, body=body("evt_other", kind="invoice.paid", object_id="in_1"))])

    assert await names(tenant_connection, tenant, EventFilter(type="invoice.paid")) == ["evt_other"]
    assert await names(tenant_connection, tenant, EventFilter(object_id="in_1")) == ["evt_other"]
    assert await names(tenant_connection, tenant, EventFilter(type="invoice.paid", object_id="ch_1")) == []
    since, until = recorded + timedelta(seconds=1), recorded + timedelta(seconds=3)
    assert await names(tenant_connection, tenant, EventFilter(since=since, until=until)) == ["evt_5", "evt_4", "evt_3", "evt_2"]


async def test_each_event_tells_what_became_of_it(tenant_connection, control, tenant, make_delivery):
    thin = '{"id": "evt_thin", "object": "v2.core.event", "type": "v1.ping", "created": "2026-03-01T00:00:00Z", "livemode": true}'
    bodies = [body("evt_pending"), body("evt_processed"), body("evt_failed"), body("evt_ignored", livemode="false"), thin]
    await record_events(control, [make_delivery(tenant, body=one) for one in bodies])
    await control.execute("DELETE FROM control.pending_events WHERE event_id IN ('evt_processed', 'evt_failed')")
    await control.execute(
        "INSERT INTO control.dead_letters (tenant_id, event_id, error) VALUES ($1, 'evt_failed', 'no currency')", tenant.tenant_id
    )

    listed = {
        event.event_id: (event.status, event.error) for event in await list_events(tenant_connection, tenant.tenant_id, EVERYTHING, limit=9)
    }

    assert listed == {
        "evt_pending": ("pending", None),
        "evt_processed": ("processed", None),
        "evt_failed": ("failed", "no currency"),
        "evt_ignored": ("ignored", None),
        "evt_thin": ("needs_fetch", None),
    }
    for event_id, told in listed.items():
        event = await get_event(tenant_connection, tenant.tenant_id, event_id)
        assert (event.status, event.error) == told


async def test_another_tenants_trouble_with_the_same_event_is_not_shown(
    tenant_connection, control, tenant, make_delivery, provision_tenant
):
    other, _ = await provision_tenant("other")
    await record_events(control, [make_delivery(tenant), make_delivery(other)])
    await control.execute("DELETE FROM control.pending_events WHERE tenant_id = $1", tenant.tenant_id)
    await control.execute("INSERT INTO control.dead_letters (tenant_id, event_id, error) VALUES ($1, 'evt_1', 'theirs')", other.tenant_id)

    event = await get_event(tenant_connection, tenant.tenant_id, "evt_1")

    assert (event.status, event.error) == ("processed", None)


async def test_one_event_comes_with_its_payload_as_received(tenant_connection, tenant, recorded):
    event = await get_event(tenant_connection, tenant.tenant_id, "evt_3")

    assert bytes(event.payload) == body("evt_3").encode()
    assert (event.type, event.object_id, event.livemode, event.deliveries) == ("charge.succeeded", "ch_1", True, 1)


async def test_an_event_that_is_not_there_is_said(tenant_connection, tenant, recorded):
    for event_id in ("evt_unknown", "", "EVT_3", "evt_%", "é"):
        with pytest.raises(EventNotFound, match="there is no event"):
            await get_event(tenant_connection, tenant.tenant_id, event_id)


@pytest.mark.both_isolations
async def test_event_stored_as_bytes_comes_with_them(tenant_connection, control, tenant, make_delivery):
    body = b'{"id": "evt_1", "name": "\xff\x00\\'
    await record_all(control, [make_delivery(tenant, body=body), make_delivery(tenant, "evt_2")])

    event = await get_event(tenant_connection, tenant.tenant_id, "evt_1")
    other = await get_event(tenant_connection, tenant.tenant_id, "evt_2")

    assert (bytes(event.payload), event.body, event.type, event.status) == (b"null", body, "unknown", "pending")
    assert other.body is None
