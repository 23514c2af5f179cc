"""Replay: a file's events are recorded and processed as if Stripe had delivered them, once however often it is run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from billingwatch import replay as replay_module
from billingwatch.errors import DatabaseUnavailable, InputInvalid
from billingwatch.replay import Replay, split_events
from billingwatch.tenancy.scope import tenant_scope


def event(number: int, **envelope: object) -> dict[str, object]:
    customer = {"id": f"cus_{number}", "object": "customer", "created": 1_772_000_000}
    return {
        "id": f"evt_{number}",
        "object": "event",
        "type": "customer.created",
        "created": 1_772_000_000,
        "livemode": True,
        "data": {"object": customer},
        **envelope,
    }


def body(number: int, **envelope: object) -> bytes:
    return json.dumps(event(number, **envelope)).encode()


def lines(*events: object) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in events)


@pytest.fixture
def run(database, tenant, now):
    async def run(entries: Iterable[bytes], on_progress=lambda _: None):
        return await Replay(database, tenant, lambda: now).run(entries, on_progress)

    return run


@pytest.fixture
def count(connect, tenant):
    async def count(table: str) -> int:
        async with tenant_scope(await connect(), tenant) as scoped:
            return await scoped.fetchval(f"SELECT count(*) FROM {table}")

    return count


ONE, TWO = event(1), event(2)


@pytest.mark.parametrize(
    "document",
    [
        lines(ONE, TWO),
        lines(ONE, TWO).rstrip(),
        b"\n \n" + lines(ONE) + b"\n\n" + lines(TWO) + b"\n",
        lines(ONE, TWO).replace(b"\n", b"\r\n"),
        json.dumps([ONE, TWO]).encode(),
        json.dumps([ONE, TWO], indent=2).encode(),
        json.dumps({"object": "list", "data": [ONE, TWO], "has_more": False}).encode(),
        json.dumps({"object": "list", "url": "/v1/events", "data": [ONE, TWO]}, indent=4).encode(),
    ],
)
def test_lines_arrays_and_stripes_lists_are_split_into_events(document):
    assert [json.loads(entry) for entry in split_events(document)] == [ONE, TWO]


def test_one_event_alone_is_one_event_in_every_form():
    for document in (lines(ONE), json.dumps(ONE).encode(), json.dumps([ONE]).encode(), json.dumps({"data": [ONE]}).encode()):
        assert [json.loads(entry) for entry in split_events(document)] == [ONE]


def test_an_event_keeps_its_bytes():
    entry = b'{"id": "evt_1",  "amount": 1.00, "amount": 2}'

    assert split_events(entry + b"\n" + entry) == [entry, entry]
    assert split_events(b"[" + entry + b" , " + entry + b"]") == [entry, entry]


@pytest.mark.parametrize("document", [b"hello", b"[1, 2", b"\xff\xfe", b"<xml/>", b"id,type\nevt_1,ping\n"])
def test_what_is_no_file_of_events_is_said(document):
    with pytest.raises(InputInvalid, match="neither one event per line nor a list"):
        split_events(document)


@given(st.binary(max_size=100))
def test_no_document_raises_anything_but_that(document):
    try:
        entries = split_events(document)
    except InputInvalid:
        return
    assert all(isinstance(entry, bytes) for entry in entries)


async def test_events_are_recorded_and_processed(run, count):
    done = await run(body(number) for number in range(10))

    assert (done.recorded, done.duplicates, done.ignored, done.processed, done.dead, done.refused) == (10, 0, 0, 10, 0, [])
    assert done.read == 10
    assert (await count("events"), await count("customers")) == (10, 10)


async def test_a_second_run_changes_nothing(run, count, control):
    entries = [body(number) for number in range(10)]
    await run(entries)

    again = await run(entries)

    assert (again.recorded, again.duplicates, again.processed) == (0, 10, 0)
    assert await count("events") == 10
    assert await control.fetchval("SELECT count(*) FROM control.pending_events") == 0


async def test_more_than_a_batch_is_replayed_with_progress(run, count, monkeypatch):
    monkeypatch.setattr(replay_module, "BATCH", 7)
    seen: list[int] = []

    done = await run((body(number) for number in range(50)), lambda progress: seen.append(progress.processed))

    assert (done.recorded, done.processed) == (50, 50)
    assert await count("customers") == 50
    assert seen == sorted(seen)
    assert seen[-1] == 50


async def test_what_is_no_event_is_counted_with_its_place_and_the_rest_goes_on(run, count):
    done = await run([body(1), b"{}", b"\xff", body(2), b"[]"])

    assert [refused.number for refused in done.refused] == [2, 3, 5]
    assert all(refused.reason for refused in done.refused)
    assert (done.recorded, done.read) == (2, 5)
    assert await count("customers") == 2


async def test_body_that_json_refuses_is_replayed_as_a_dead_letter(run, count):
    broken = body(2).replace(b'"livemode"', b'"name": "\xff\x01\0", "livemode"')

    with capture_logs():
        done = await run([body(1), broken, body(3)])
        again = await run([body(1), broken, body(3)])

    assert (done.recorded, done.processed, done.dead, done.refused) == (3, 3, 1, [])
    assert (again.recorded, again.duplicates, again.dead) == (0, 3, 1)
    assert await count("customers") == 2
    assert await count("events WHERE body IS NOT NULL") == 1


async def test_large_events_are_recorded_in_batches_of_bytes(run, count, monkeypatch):
    monkeypatch.setattr(replay_module, "BATCH_BYTES", 1000)
    record_all, batches = replay_module.record_all, []

    async def observe(connection, deliveries):
        batches.append(len(deliveries))
        return await record_all(connection, deliveries)

    monkeypatch.setattr(replay_module, "record_all", observe)
    done = await run([body(number, notes="x" * size) for number, size in enumerate([5000, 300, 300, 300, 5000])])

    assert (done.recorded, done.processed) == (5, 5)
    assert batches == [1, 3, 1]


async def test_batch_without_any_event_is_skipped(run):
    done = await run([b"{}", b"[]"])

    assert [refused.number for refused in done.refused] == [1, 2]


@pytest.mark.parametrize(
    "exported",
    [
        b'{\n  "id": "evt_1",\n  "data": {\n    "object": {"name": "\\ud83d"}\n  }\n}',
        b'{\n  "id": "evt_1",\n  "name": "\xff"\n}',
        b'{"id": "evt_1",\n "name": "cut o',
        b'\xef\xbb\xbf{"id": "evt_1"}',
        b'{"id": "evt_1"}}',
    ],
)
def test_file_of_one_body_that_is_no_json_is_one_event(exported):
    assert split_events(exported) == [exported]


def test_lines_of_bodies_that_are_no_json_are_split():
    bodies = [b'{"id": "evt_1", "name": "\xff"}', b'{"id": "evt_2", "name": "cut o', b'{"id": "evt_3"}}']

    assert split_events(b"\n".join(bodies)) == bodies


async def test_events_of_the_other_mode_and_thin_ones_are_recorded_and_ignored(run, count):
    thin = b'{"id": "evt_2", "object": "v2.core.event", "type": "v1.ping", "created": "2026-03-01T00:00:00Z", "livemode": true}'

    done = await run([body(1, livemode=False), thin, body(3)])

    assert (done.recorded, done.ignored, done.processed) == (3, 2, 1)
    assert (await count("events"), await count("customers")) == (3, 1)


async def test_an_event_that_cannot_be_projected_is_dead_and_the_rest_goes_on(run, count):
    with capture_logs():
        done = await run([body(1, data={"object": {"object": "customer"}}), body(2)])

    assert (done.recorded, done.processed, done.dead) == (2, 2, 1)
    assert await count("customers") == 1


async def test_what_another_visit_set_aside_is_told_as_well(run):
    broken = body(1, data={"object": {"object": "customer"}})
    with capture_logs():
        await run([broken, body(3, data={"object": {"object": "customer"}})])
        again = await run([broken, body(2)])

    assert (again.recorded, again.duplicates, again.processed, again.dead) == (1, 1, 1, 1)


async def test_one_event_twice_in_a_file_is_recorded_once(run, count):
    done = await run([body(1)] * 3)

    assert (done.recorded, done.duplicates, done.processed) == (1, 2, 1)
    assert await count("events") == 1


async def test_nothing_is_nothing(run):
    done = await run([])

    assert (done.read, done.processed) == (0, 0)


async def test_two_replays_of_one_file_at_once_process_each_event_once(run, count):
    entries = [body(number) for number in range(30)]

    done = await asyncio.gather(run(entries), run(entries))

    assert sum(one.recorded for one in done) == sum(one.processed for one in done) == 30
    assert await count("customers") == 30


async def test_a_replay_that_loses_the_database_can_be_run_again(run, count, control, monkeypatch):
    monkeypatch.setattr(replay_module, "BATCH", 5)
    entries = [body(number) for number in range(40)]
    record_all, batches = replay_module.record_all, 0

    async def lose(connection, deliveries):
        nonlocal batches
        batches += 1
        if batches == 4:
            await control.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
        return await record_all(connection, deliveries)

    monkeypatch.setattr(replay_module, "record_all", lose)
    with pytest.raises(DatabaseUnavailable):
        await run(entries)
    before = await count("events")
    done = await run(entries)

    assert before in {15, 20}  # the fourth batch may have been committed before its connection died
    assert (done.recorded, done.duplicates) == (40 - before, before)
    assert await count("events") == await count("customers") == 40


async def test_a_fault_in_the_file_itself_reaches_the_caller(run):
    def breaking() -> Iterator[bytes]:
        yield body(1)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        await run(breaking())
