"""Recording: committed once or refused, many at a time, and nobody pays for another's trouble."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest
from structlog.testing import capture_logs

from billingwatch.errors import Overloaded
from billingwatch.ingest import locked as locked_module
from billingwatch.ingest import recorder as recorder_module
from billingwatch.ingest.recorder import BATCH_LIMIT, Recorded
from billingwatch.tenancy.scope import tenant_scope

STORED = "SELECT event_id, deliveries FROM events ORDER BY event_id"
BODIES = "SELECT event_id, body FROM events WHERE body IS NOT NULL ORDER BY event_id"
NOT_JSON: dict[str, str | bytes] = {
    "control character": '{"id": "evt_1", "a": "\x01"}',
    "nested too deep": '{"id": "evt_1", "a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "not UTF-8": b'{"id": "evt_1", "a": "\xff"}',
    "NUL byte": '{"id": "evt_1", "a": "\0"}',
    "byte order mark": '\ufeff{"id": "evt_1"}',
    "cut off": '{"id": "evt_1", "a": "Zo\u00eb',
    "NaN": '{"id": "evt_1", "a": NaN}',
    "garbage": '{"id": "evt_1"}}',
}


def in_bytes(payload: str | bytes) -> bytes:
    return payload if isinstance(payload, bytes) else payload.encode()


async def attempt(recorder, deliveries) -> list[Recorded | BaseException]:
    return await asyncio.gather(*(recorder.record(delivery) for delivery in deliveries), return_exceptions=True)


async def test_an_event_is_committed_when_record_returns(make_recorder, make_delivery, rows, pending, tenant):
    recorded = await make_recorder().record(make_delivery(tenant))

    assert recorded == Recorded(is_new=True)
    assert await rows(tenant, STORED) == [("evt_1", 1)]
    assert await pending() == [(tenant.tenant_id, "evt_1")]


async def test_many_that_wait_are_written_together(make_recorder, make_delivery, rows, pending, tenant):
    recorder = make_recorder()

    acks = await attempt(recorder, [make_delivery(tenant, f"evt_{number:03}") for number in range(300)])

    assert acks == [Recorded(is_new=True)] * 300
    assert recorder.lanes[0].batches == -(-300 // BATCH_LIMIT)
    assert await rows(tenant, STORED) == [(f"evt_{number:03}", 1) for number in range(300)]
    assert len(await pending()) == 300


async def test_twenty_deliveries_at_once_are_one_event(make_recorder, make_delivery, rows, pending, tenant):
    acks = await attempt(make_recorder(), [make_delivery(tenant)] * 20)

    assert sorted(ack.is_new for ack in acks) == [False] * 19 + [True]
    assert await rows(tenant, STORED) == [("evt_1", 20)]
    assert await pending() == [(tenant.tenant_id, "evt_1")]


async def test_twenty_deliveries_over_several_processes_are_one_event(make_recorder, make_delivery, rows, pending, tenant):
    recorders = [make_recorder() for _ in range(4)]
    deliveries = [make_delivery(tenant, f"evt_{number}") for number in range(10)]

    done = await asyncio.gather(*(attempt(recorder, [*deliveries, *reversed(deliveries)]) for recorder in recorders))

    acks = [ack for process in done for ack in process]
    assert sum(ack.is_new for ack in acks) == 10
    assert await rows(tenant, STORED) == [(f"evt_{number}", 8) for number in range(10)]
    assert sorted(await pending()) == [(tenant.tenant_id, f"evt_{number}") for number in range(10)]


async def test_a_redelivery_counts_and_changes_nothing_else(make_recorder, make_delivery, rows, pending, control, tenant):
    recorder = make_recorder()
    first = make_delivery(tenant)
    later = first.received_at.replace(hour=13)
    await recorder.record(first)
    await control.execute("DELETE FROM control.pending_events")

    again = await recorder.record(make_delivery(tenant, body=first.payload.replace("ping", "pong"), received_at=later))
    earlier = await recorder.record(make_delivery(tenant, received_at=first.received_at.replace(hour=11)))

    assert not again.is_new
    assert not earlier.is_new
    ((kind, payload, received_at, last_received_at, deliveries),) = await rows(
        tenant, "SELECT type, payload, received_at, last_received_at, deliveries FROM events"
    )
    assert (kind, payload, received_at, last_received_at, deliveries) == ("ping", first.payload, first.received_at, later, 3)
    assert await pending() == []


async def test_a_batch_of_new_and_known_events_tells_them_apart(make_recorder, make_delivery, rows, tenant):
    recorder = make_recorder()
    await attempt(recorder, [make_delivery(tenant, f"evt_{number}") for number in (1, 3)])

    acks = await attempt(recorder, [make_delivery(tenant, f"evt_{number}") for number in (4, 3, 2, 1, 3)])

    assert [ack.is_new for ack in acks] == [True, False, True, False, False]
    assert await rows(tenant, STORED) == [("evt_1", 2), ("evt_2", 1), ("evt_3", 3), ("evt_4", 1)]


async def test_one_event_id_at_two_tenants_is_two_events(make_recorder, make_delivery, rows, pending, provision_tenant):
    one, other = [(await provision_tenant(name))[0] for name in ("one", "other")]
    recorder = make_recorder()

    acks = await attempt(recorder, [make_delivery(one), make_delivery(other)])

    assert acks == [Recorded(is_new=True)] * 2
    assert await rows(one, STORED) == await rows(other, STORED) == [("evt_1", 1)]
    assert sorted(await pending()) == [(one.tenant_id, "evt_1"), (other.tenant_id, "evt_1")]


async def test_what_is_not_to_be_processed_is_stored_and_not_pending(make_recorder, make_delivery, rows, pending, tenant):
    recorder = make_recorder()
    wrong_mode = '{"id": "evt_1", "object": "event", "type": "ping", "created": 1700000000, "livemode": false}'
    thin = '{"id": "evt_2", "object": "v2.core.event", "type": "v1.ping", "created": "2026-09-20T12:00:00Z", "livemode": true}'

    acks = await attempt(
        recorder, [make_delivery(tenant, body=wrong_mode), make_delivery(tenant, body=thin), make_delivery(tenant, "evt_3")]
    )

    assert acks == [Recorded(is_new=True)] * 3
    assert await rows(tenant, "SELECT event_id, disposition, livemode FROM events ORDER BY event_id") == [
        ("evt_1", "ignored", False),
        ("evt_2", "needs_fetch", True),
        ("evt_3", "process", True),
    ]
    assert await pending() == [(tenant.tenant_id, "evt_3")]


@pytest.mark.both_isolations
async def test_payloads_that_json_refuses_are_stored_as_bytes_among_others(make_recorder, make_delivery, rows, pending, tenant):
    deliveries = [make_delivery(tenant, f"evt_{number}") for number in range(10)]
    refused: dict[int, str | bytes] = dict(zip((1, 3, 7), NOT_JSON.values(), strict=False))
    for number, payload in refused.items():
        deliveries[number] = msgspec.structs.replace(deliveries[number], payload=payload)
    recorder = make_recorder()

    with capture_logs() as logs:
        acks = await attempt(recorder, deliveries)

    assert acks == [Recorded(is_new=True)] * 10
    stored = [(f"evt_{number}", 1) for number in range(10)]
    assert await rows(tenant, STORED) == stored
    assert sorted(event_id for _, event_id in await pending()) == [event_id for event_id, _ in stored]
    assert dict(await rows(tenant, BODIES)) == {f"evt_{number}": in_bytes(payload) for number, payload in refused.items()}
    assert logs == []


@pytest.mark.both_isolations
@pytest.mark.parametrize("payload", NOT_JSON.values(), ids=NOT_JSON)
async def test_payload_that_json_refuses_is_stored_and_counted_once(make_recorder, make_delivery, rows, pending, tenant, now, payload):
    delivery = msgspec.structs.replace(make_delivery(tenant), payload=payload)
    later = msgspec.structs.replace(delivery, received_at=now + timedelta(hours=1))
    recorder = make_recorder()

    first = await attempt(recorder, [delivery])
    again = await attempt(recorder, [later, later])

    assert [ack.is_new for ack in (*first, *again)] == [True, False, False]
    assert await rows(tenant, BODIES) == [("evt_1", in_bytes(payload))]
    assert await rows(tenant, "SELECT event_id, payload, deliveries, received_at, last_received_at, signed_at FROM events") == [
        ("evt_1", "null", 3, now, later.received_at, now)
    ]
    assert await pending() == [(tenant.tenant_id, "evt_1")]


@pytest.mark.both_isolations
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_event_delivered_as_json_and_as_bytes_is_one_event(make_recorder, make_delivery, rows, pending, tenant, order):
    whole = make_delivery(tenant)
    both = [whole, msgspec.structs.replace(whole, payload="{")]
    recorder = make_recorder()

    acks = [(await attempt(recorder, [both[number]]))[0].is_new for number in order]
    together = await attempt(recorder, both)

    assert acks == [True, False]
    assert [ack.is_new for ack in together] == [False, False]
    assert await rows(tenant, STORED) == [("evt_1", 4)]
    assert await rows(tenant, "SELECT body IS NULL FROM events") == [(order == (0, 1),)]
    assert len(await pending()) == 1


@pytest.mark.both_isolations
async def test_ignored_event_stored_as_bytes_is_not_pending(make_recorder, make_delivery, rows, pending, tenant):
    delivery = msgspec.structs.replace(make_delivery(tenant), payload="{", disposition="ignored")

    await attempt(make_recorder(), [delivery])

    assert await rows(tenant, "SELECT disposition, body FROM events") == [("ignored", b"{")]
    assert await pending() == []


@pytest.mark.both_isolations
async def test_bytes_that_cannot_be_stored_are_refused_as_unavailable(make_recorder, make_delivery, rows, control, tenant):
    await control.execute(f"ALTER TABLE {tenant.schema_name}.events DROP COLUMN body CASCADE")
    deliveries = [make_delivery(tenant, f"evt_{number}") for number in range(3)]
    deliveries[1] = msgspec.structs.replace(deliveries[1], payload="{")

    with capture_logs() as logs:
        acks = await attempt(make_recorder(), deliveries)

    assert [type(ack) for ack in acks] == [Recorded, Overloaded, Recorded]
    assert await rows(tenant, STORED) == [("evt_0", 1), ("evt_2", 1)]
    assert [(entry["event"], entry["event_id"]) for entry in logs] == [("ingest.event_refused", "evt_1")]


@pytest.mark.schema_isolation
async def test_refused_events_of_one_cause_are_logged_once(make_recorder, make_delivery, control, tenant):
    await control.execute(f"ALTER TABLE {tenant.schema_name}.events DROP COLUMN object_id CASCADE")
    recorder = make_recorder()

    with capture_logs() as logs:
        acks = await attempt(recorder, [make_delivery(tenant, f"evt_{number}") for number in range(5)])

    assert [type(ack) for ack in acks] == [Overloaded] * 5
    assert [entry["event"] for entry in logs] == ["ingest.event_refused"]


@pytest.mark.schema_isolation
async def test_one_tenant_whose_schema_is_gone_does_not_hurt_the_others(make_recorder, make_delivery, rows, control, provision_tenant):
    tenants = [(await provision_tenant(f"tenant-{number}"))[0] for number in range(4)]
    await control.execute(f"DROP SCHEMA {tenants[1].schema_name} CASCADE")
    recorder = make_recorder()

    acks = await attempt(recorder, [make_delivery(tenant, f"evt_{number}") for number in range(3) for tenant in tenants])

    assert [type(ack) for ack in acks] == [Recorded, Overloaded, Recorded, Recorded] * 3
    for tenant in (tenants[0], tenants[2], tenants[3]):
        assert len(await rows(tenant, STORED)) == 3


async def test_a_full_queue_refuses_at_once_and_keeps_what_it_took(make_recorder, make_delivery, rows, tenant):
    recorder = make_recorder(queue_limit=5)

    async with recorder.lanes[0].lane.hold():
        first = asyncio.create_task(recorder.record(make_delivery(tenant, "evt_first")))
        await asyncio.sleep(0.01)  # it is on its way, and no longer waits
        waiting = [asyncio.create_task(recorder.record(make_delivery(tenant, f"evt_{number}"))) for number in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="too many events are waiting"):
            await recorder.record(make_delivery(tenant, "evt_too_many"))
        depth = recorder.lanes[0].depth
    await asyncio.gather(first, *waiting)

    assert depth == 5
    assert len(await rows(tenant, STORED)) == 6
    assert (await recorder.record(make_delivery(tenant, "evt_later"))).is_new


async def test_closing_writes_what_waits_and_refuses_what_comes_later(make_recorder, make_delivery, rows, tenant):
    recorder = make_recorder()
    waiting = [asyncio.create_task(recorder.record(make_delivery(tenant, f"evt_{number:03}"))) for number in range(BATCH_LIMIT * 2)]
    await asyncio.sleep(0)

    closing = asyncio.create_task(recorder.close())
    while not recorder.lanes[0]._closing:
        await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="shutting down"):
        await recorder.record(make_delivery(tenant, "evt_late"))
    await closing

    assert [task.result() for task in waiting] == [Recorded(is_new=True)] * len(waiting)
    assert len(await rows(tenant, STORED)) == len(waiting)
    assert not recorder.lanes[0].lane.connected


async def test_a_database_that_goes_away_is_said_and_recording_recovers_by_itself(make_recorder, make_delivery, rows, road, tenant):
    recorder = make_recorder(dsn=road.dsn)
    await recorder.record(make_delivery(tenant, "evt_before"))

    await road.cut()
    refused = await attempt(recorder, [make_delivery(tenant, f"evt_{number}") for number in range(20)])
    refused += await attempt(recorder, [make_delivery(tenant, f"evt_{number}") for number in range(20)])
    await road.mend()
    async with asyncio.timeout(5):
        while isinstance((await attempt(recorder, [make_delivery(tenant, "evt_after")]))[0], Overloaded):
            await asyncio.sleep(0.05)

    assert {type(error) for error in refused} == {Overloaded}
    assert [event_id for event_id, _ in await rows(tenant, STORED)] == ["evt_after", "evt_before"]


async def test_a_backend_killed_in_mid_batch_costs_no_acknowledged_event(make_recorder, make_delivery, rows, pending, control, tenant):
    recorder = make_recorder()
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'billingwatch ingest 0' AND datname = current_database()"

    acked: set[str] = set()
    for burst in range(8):
        names = [f"evt_{burst}_{number}" for number in range(40)]
        attempts = asyncio.create_task(attempt(recorder, [make_delivery(tenant, name) for name in names]))
        await asyncio.sleep(0.001 * burst)
        await control.execute(kill)
        acked |= {name for name, ack in zip(names, await attempts, strict=True) if isinstance(ack, Recorded)}
        again = await attempt(recorder, [make_delivery(tenant, name) for name in names])
        acked |= {name for name, ack in zip(names, again, strict=True) if isinstance(ack, Recorded)}

    stored = [event_id for event_id, _ in await rows(tenant, STORED)]
    assert acked <= set(stored)
    assert len(acked) >= 40
    assert sorted(event_id for _, event_id in await pending()) == stored


async def test_who_stops_waiting_takes_nothing_from_the_others(make_recorder, make_delivery, rows, tenant):
    recorder = make_recorder()
    waiting = [asyncio.create_task(recorder.record(make_delivery(tenant, f"evt_{number}"))) for number in range(5)]
    await asyncio.sleep(0)

    waiting[2].cancel()
    done = await asyncio.gather(*waiting, return_exceptions=True)

    assert isinstance(done[2], asyncio.CancelledError)
    assert [done[number] for number in (0, 1, 3, 4)] == [Recorded(is_new=True)] * 4
    assert len(await rows(tenant, STORED)) == 5


async def test_a_fault_of_our_own_refuses_the_batch_and_not_the_next(make_recorder, make_delivery, rows, tenant, monkeypatch):
    recorder = make_recorder()

    async def break_down(connection, deliveries):
        raise ZeroDivisionError

    with monkeypatch.context() as broken, capture_logs() as logs:
        broken.setattr(recorder_module, "record_events", break_down)
        acks = await attempt(recorder, [make_delivery(tenant, "evt_1"), make_delivery(tenant, "evt_2")])
    after = await recorder.record(make_delivery(tenant, "evt_3"))

    assert {type(ack) for ack in acks} == {Overloaded}
    assert after.is_new
    assert [entry["event"] for entry in logs] == ["ingest.batch_failed"]


@pytest.mark.schema_isolation
async def test_tenants_of_other_lanes_go_on_while_one_is_locked(make_recorder, make_delivery, connect, rows, provision_tenant):
    held, free = [(await provision_tenant(name))[0] for name in ("held", "free")]
    recorder = make_recorder(lanes=2)
    async with tenant_scope(await connect(), held) as scoped:
        await scoped.execute("LOCK TABLE events")
        stuck = asyncio.create_task(recorder.record(make_delivery(held)))
        await asyncio.sleep(0.02)

        async with asyncio.timeout(5):
            acked = await recorder.record(make_delivery(free))
        waits = not stuck.done()

    assert acked.is_new
    assert waits
    assert (await stuck).is_new


@pytest.mark.schema_isolation
async def test_a_lane_is_recycled_under_load_without_losing_an_event(make_recorder, make_delivery, rows, provision_tenant):
    tenants = [(await provision_tenant(f"tenant-{number}"))[0] for number in range(4)]
    recorder = make_recorder(tenants_limit=1)

    for number in range(5):
        for tenant in tenants:
            await recorder.record(make_delivery(tenant, f"evt_{number}"))

    assert recorder.lanes[0].lane.recycled >= 5
    for tenant in tenants:
        assert await rows(tenant, STORED) == [(f"evt_{number}", 1) for number in range(5)]


async def test_tenants_with_new_events_to_process_are_announced_after_the_commit(make_recorder, make_delivery, provision_tenant):
    one, other = [(await provision_tenant(name))[0] for name in ("one", "other")]
    announced: list[set[int]] = []
    recorder = make_recorder(on_recorded=announced.append)

    await attempt(recorder, [make_delivery(one), make_delivery(other)])
    await attempt(recorder, [make_delivery(one), make_delivery(other, "evt_2")])
    await attempt(recorder, [make_delivery(one)])

    assert announced == [{one.tenant_id, other.tenant_id}, {other.tenant_id}]


@pytest.mark.schema_isolation
async def test_a_lock_on_one_tenants_table_does_not_hold_up_the_others(
    make_recorder, make_delivery, provision_tenant, rows, connect, tenant
):
    recorder = make_recorder()
    other, _ = await provision_tenant("other")
    holder = await connect()

    async with holder.transaction():
        await holder.execute(f"LOCK TABLE {tenant.schema_name}.events IN ACCESS EXCLUSIVE MODE")
        first = await attempt(recorder, [make_delivery(tenant), make_delivery(other)])
        batches = recorder.lanes[0].batches
        second = await asyncio.wait_for(attempt(recorder, [make_delivery(tenant, "evt_2"), make_delivery(other, "evt_2")]), 0.4)

    assert [type(ack) for ack in first] == [type(ack) for ack in second] == [Overloaded, Recorded]
    assert recorder.lanes[0].batches == batches + 1
    assert await rows(other, STORED) == [("evt_1", 1), ("evt_2", 1)]
    assert await rows(tenant, STORED) == []


async def test_a_tenant_whose_lock_is_gone_is_recorded_again(make_recorder, make_delivery, rows, connect, tenant):
    recorder = make_recorder()
    holder = await connect()
    async with holder.transaction():
        await holder.execute(f"LOCK TABLE {tenant.schema_name}.events IN ACCESS EXCLUSIVE MODE")
        [refused] = await attempt(recorder, [make_delivery(tenant)])

    acks: list[Recorded | BaseException] = [refused]
    async with asyncio.timeout(10):
        while not isinstance(acks[-1], Recorded):
            await asyncio.sleep(0.05)
            acks += await attempt(recorder, [make_delivery(tenant)])

    assert isinstance(refused, Overloaded)
    assert acks[-1] == Recorded(is_new=True)
    assert await rows(tenant, STORED) == [("evt_1", 1)]


async def test_a_lock_that_is_soon_gone_refuses_nobody(make_recorder, make_delivery, rows, connect, tenant):
    recorder = make_recorder()
    holder = await connect()

    async with holder.transaction():
        await holder.execute(f"LOCK TABLE {tenant.schema_name}.events IN ACCESS EXCLUSIVE MODE")
        waiting = asyncio.create_task(recorder.record(make_delivery(tenant)))
        await asyncio.sleep(0.1)

    assert await waiting == Recorded(is_new=True)
    assert await rows(tenant, STORED) == [("evt_1", 1)]


async def test_lane_task_that_dies_refuses_its_batch_and_writes_the_next(make_recorder, make_delivery, rows, tenant, monkeypatch):
    recorder = make_recorder()
    original = recorder_module.record_events

    async def die(connection, deliveries):
        monkeypatch.setattr(recorder_module, "record_events", original)
        raise asyncio.CancelledError  # no handler of the lane catches it

    monkeypatch.setattr(recorder_module, "record_events", die)
    first = asyncio.create_task(recorder.record(make_delivery(tenant, "evt_1")))
    await asyncio.sleep(0)
    while recorder.lanes[0].depth:
        await asyncio.sleep(0)
    second = asyncio.create_task(recorder.record(make_delivery(tenant, "evt_2")))

    with pytest.raises(Overloaded, match="interrupted"):
        await first
    assert (await second).is_new
    assert await rows(tenant, STORED) == [("evt_2", 1)]


async def test_lane_task_survives_a_log_that_raises(make_recorder, make_delivery, rows, connect, tenant, monkeypatch):
    recorder = make_recorder()
    monkeypatch.setattr(locked_module.log, "warning", fail_to_log, raising=False)
    holder = await connect()

    async with holder.transaction():
        await holder.execute(f"LOCK TABLE {tenant.schema_name}.events IN ACCESS EXCLUSIVE MODE")
        [refused] = await attempt(recorder, [make_delivery(tenant)])
    async with asyncio.timeout(20):
        while not isinstance((await attempt(recorder, [make_delivery(tenant)]))[0], Recorded):
            await asyncio.sleep(0.05)

    assert isinstance(refused, Overloaded)
    assert await rows(tenant, STORED) == [("evt_1", 1)]


def fail_to_log(*arguments: object, **facts: object) -> None:
    raise BrokenPipeError


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(recorder_module, "COMMIT_SECONDS", 0.3)
    monkeypatch.setattr(recorder_module, "CHECK_SECONDS", 0.02)
    monkeypatch.setattr(recorder_module, "CLOSE_SECONDS", 0.5)


async def test_frozen_database_refuses_what_waits_and_recovers(make_recorder, make_delivery, rows, road, tenant, impatient):
    recorder = make_recorder(dsn=road.dsn)
    lane = recorder.lanes[0]
    await recorder.record(make_delivery(tenant, "evt_before"))
    batches = lane.batches

    road.freeze()
    async with asyncio.timeout(20):
        hung = asyncio.create_task(recorder.record(make_delivery(tenant, "evt_hung")))
        while lane.batches == batches:
            await asyncio.sleep(0)
        queued = await attempt(recorder, [make_delivery(tenant, f"evt_{number}") for number in range(5)])
        [refused] = await asyncio.gather(hung, return_exceptions=True)
        while not lane._stalled:
            await asyncio.sleep(0)
        [at_once] = await attempt(recorder, [make_delivery(tenant, "evt_later")])
        refusing = lane.refusing
        road.thaw()
        while not isinstance((await attempt(recorder, [make_delivery(tenant, "evt_after")]))[0], Recorded):
            await asyncio.sleep(0.02)

    assert {type(error) for error in [*queued, refused, at_once]} == {Overloaded}
    assert refusing
    assert not lane.refusing
    assert lane.depth == 0
    assert lane._waiting_bytes == 0
    assert {event_id for event_id, _ in await rows(tenant, STORED)} == {"evt_before", "evt_hung", "evt_after"}


async def test_recorder_closes_while_the_database_is_frozen(make_recorder, make_delivery, road, tenant, impatient):
    recorder = make_recorder(dsn=road.dsn)
    await recorder.record(make_delivery(tenant, "evt_before"))

    road.freeze()
    waiting = [asyncio.create_task(recorder.record(make_delivery(tenant, f"evt_{number}"))) for number in range(300)]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await recorder.close()

    assert {type(error) for error in await asyncio.gather(*waiting, return_exceptions=True)} == {Overloaded}


async def test_lock_that_nobody_finds_ends_with_the_deadline(make_recorder, make_delivery, connect, tenant, impatient):
    recorder = make_recorder()
    holder = await connect()

    async with holder.transaction():
        await holder.execute("LOCK TABLE control.pending_events IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(20):
            refused = await attempt(recorder, [make_delivery(tenant, f"evt_{number}") for number in range(3)])
    async with asyncio.timeout(20):
        while not isinstance((await attempt(recorder, [make_delivery(tenant, "evt_after")]))[0], Recorded):
            await asyncio.sleep(0.02)

    assert {type(error) for error in refused} == {Overloaded}


async def test_full_disk_makes_the_lane_refuse_until_a_commit(make_recorder, make_delivery, tenant, monkeypatch):
    recorder = make_recorder()
    original = recorder_module.record_events

    async def find_no_space(connection, deliveries):
        await connection.execute("DO $$ BEGIN RAISE SQLSTATE '53100'; END $$")

    with monkeypatch.context() as full:
        full.setattr(recorder_module, "record_events", find_no_space)
        [refused] = await attempt(recorder, [make_delivery(tenant)])
        refusing = recorder.lanes[0].refusing
    assert recorder_module.record_events is original
    await recorder.record(make_delivery(tenant))

    assert isinstance(refused, Overloaded)
    assert refusing
    assert not recorder.lanes[0].refusing


@pytest.mark.schema_isolation
async def test_one_tenant_whose_schema_is_gone_leaves_the_lane_ready(make_recorder, make_delivery, control, tenant):
    recorder = make_recorder()
    await control.execute(f"DROP SCHEMA {tenant.schema_name} CASCADE")

    [refused] = await attempt(recorder, [make_delivery(tenant)])

    assert isinstance(refused, Overloaded)
    assert not recorder.lanes[0].refusing


async def test_deliveries_of_a_lane_without_its_task_are_refused(make_recorder, make_delivery, tenant, impatient):
    recorder = make_recorder()
    await recorder.lanes[0]._task.stop()

    async with asyncio.timeout(20):
        refused = await attempt(recorder, [make_delivery(tenant, f"evt_{number}") for number in range(3)])

    assert {type(error) for error in refused} == {Overloaded}
    assert recorder.lanes[0].depth == 0
    assert not recorder.lanes[0].alive
