"""A visit handles a tenant's pending events in one transaction: all of it or nothing, and one bad event holds up no other."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from billingwatch import judgement
from billingwatch import visit as visit_module
from billingwatch.detection import engine
from billingwatch.detection.engine import DetectionOutcome
from billingwatch.errors import DatabaseUnavailable
from billingwatch.ingest.record import record_all, record_events
from billingwatch.log_limit import LogLimit
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.visit import Visited, list_dead_letters, retry_dead_letters, visit

BIGGEST = 2**63 - 1
Record = Callable[..., Awaitable[None]]


def charge_event(number: int, **fields: object) -> dict[str, Any]:
    created = 1_772_000_000 + number
    charge = {
        "id": f"ch_{number}",
        "object": "charge",
        "amount": 2000,
        "currency": "usd",
        "created": created,
        "status": "succeeded",
        "captured": True,
        "customer": f"cus_{number}",
        "payment_intent": f"pi_{number}",
        "payment_method_details": {"type": "card", "card": {"fingerprint": f"fp_{number}"}},
        **fields,
    }
    kind = "charge.failed" if charge["status"] == "failed" else "charge.succeeded"
    return {"id": f"evt_{number}", "object": "event", "type": kind, "created": created, "livemode": True, "data": {"object": charge}}


@pytest.fixture(autouse=True)
def _nothing_logged_yet(monkeypatch):
    """Databases of tests give the same id to different tenants."""
    monkeypatch.setattr(visit_module, "_buried", LogLimit(lines=visit_module.ERRORS_LOGGED))
    monkeypatch.setattr(visit_module, "_many_buried", LogLimit())


@pytest.fixture
def lane(open_lane):
    return open_lane("work")


@pytest.fixture
def record(control, tenant, make_delivery) -> Record:
    async def record(*events: dict[str, Any]) -> None:
        await record_events(control, [make_delivery(tenant, body=json.dumps(event)) for event in events])

    return record


@pytest.fixture
def count(connect, tenant):
    async def count(table: str) -> int:
        async with tenant_scope(await connect(), tenant) as scoped:
            return await scoped.fetchval(f"SELECT count(*) FROM {table}")

    return count


async def test_pending_events_are_projected_and_pending_no_longer(lane, tenant, record, count, now):
    await record(*(charge_event(number) for number in range(5)))

    visited = await visit(lane, tenant, as_of=now)

    assert visited == Visited(events=5, dead=0, more=False)
    assert await count("charges") == 5
    assert await count("control.pending_events") == 0
    assert await visit(lane, tenant, as_of=now) == Visited(events=0, dead=0, more=False)


async def test_a_visit_takes_no_more_than_its_limit_oldest_first_and_tells(lane, tenant, record, control, now):
    for number in range(5):
        await record(charge_event(number))

    visited = await visit(lane, tenant, as_of=now, limit=3)

    assert visited == Visited(events=3, dead=0, more=True)
    assert [row["event_id"] for row in await control.fetch("SELECT event_id FROM control.pending_events ORDER BY position")] == [
        "evt_3",
        "evt_4",
    ]


async def test_a_visit_takes_its_own_tenants_events_alone(lane, tenant, record, provision_tenant, control, make_delivery, count, now):
    other, _ = await provision_tenant("other")
    await record(charge_event(1))
    await record_events(control, [make_delivery(other, body=json.dumps(charge_event(2)))])

    await visit(lane, other, as_of=now)

    assert await count("charges") == 0
    assert await control.fetchval("SELECT tenant_id FROM control.pending_events") == tenant.tenant_id


async def test_two_visits_at_once_handle_each_event_once(open_lane, tenant, record, count, now):
    await record(*(charge_event(number) for number in range(20)))

    done = await asyncio.gather(*(visit(open_lane(), tenant, as_of=now, limit=5) for _ in range(6)))

    assert sum(visited.events for visited in done) == await count("charges") == 20 - await count("control.pending_events")


async def test_a_visit_that_fails_has_done_nothing(lane, tenant, record, count, now, monkeypatch):
    await record(*(charge_event(number) for number in range(3)))

    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(judgement, "detect", fail)
        with pytest.raises(ZeroDivisionError):
            await visit(lane, tenant, as_of=now)

    assert (await count("charges"), await count("control.pending_events")) == (0, 3)
    assert (await visit(lane, tenant, as_of=now)).events == 3


async def test_a_visit_whose_connection_dies_is_repeated_by_the_next(lane, tenant, record, count, control, now, monkeypatch):
    await record(*(charge_event(number) for number in range(3)))
    detect = judgement.detect

    async def die(connection: asyncpg.Connection, *arguments: object, **options: object) -> object:
        await control.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
        return await detect(connection, *arguments, **options)

    with monkeypatch.context() as broken:
        broken.setattr(judgement, "detect", die)
        with pytest.raises(DatabaseUnavailable):
            await visit(lane, tenant, as_of=now)

    assert (await count("charges"), await count("control.pending_events")) == (0, 3)
    assert (await visit(lane, tenant, as_of=now)).events == 3
    assert await count("charges") == 3


async def test_an_event_that_cannot_be_projected_is_set_aside_and_the_others_go_on(lane, tenant, record, count, control, now):
    faults: list[dict[str, object]] = [
        {"amount": "a lot"},
        {"amount": 2**63},
        {"currency": None},
        {"created": "yesterday"},
        {"created": 10**15},
        {"id": "ch_" + "x" * 300},
        {"id": "ch_\0"},
        {"customer": "\0"},
    ]
    await record(*(charge_event(number, **fields) for number, fields in enumerate([{}, *faults, {}])))

    with capture_logs() as logs:
        visited = await visit(lane, tenant, as_of=now)

    assert visited == Visited(events=len(faults) + 2, dead=len(faults), more=False)
    assert (await count("charges"), await count("control.pending_events")) == (2, 0)
    letters = {letter.event_id: letter.error for letter in await list_dead_letters(control, tenant.tenant_id)}
    assert set(letters) == {f"evt_{number}" for number in range(1, len(faults) + 1)}
    assert all(letters.values())
    assert {entry["event_id"] for entry in logs if entry["event"] == "visit.event_buried"} == set(letters)


async def test_a_fault_of_a_reader_sets_one_event_aside(lane, tenant, record, count, control, now, monkeypatch):
    read_event = visit_module.read_event

    def fail(event: dict[str, Any]) -> object:
        if event["id"] == "evt_2":
            raise AttributeError("nobody foresaw this")
        return read_event(event)

    monkeypatch.setattr(visit_module, "read_event", fail)
    await record(*(charge_event(number) for number in range(1, 4)))

    with capture_logs():
        visited = await visit(lane, tenant, as_of=now)

    assert visited == Visited(events=3, dead=1, more=False)
    (letter,) = await list_dead_letters(control, tenant.tenant_id)
    assert letter.error == "AttributeError: nobody foresaw this"


@pytest.mark.parametrize("error", [asyncpg.NumericValueOutOfRangeError, asyncpg.NotNullViolationError])
async def test_an_event_whose_rows_postgres_refuses_is_found_among_the_others_and_set_aside(
    lane, tenant, record, count, control, now, monkeypatch, error
):
    project = visit_module.project

    async def refuse(connection, rows):
        if any(row.key == "ch_2" for row in rows):
            raise error("no such number")
        return await project(connection, rows)

    monkeypatch.setattr(visit_module, "project", refuse)
    await record(*(charge_event(number) for number in range(5)))

    with capture_logs():
        visited = await visit(lane, tenant, as_of=now)

    assert visited == Visited(events=5, dead=1, more=False)
    assert await count("charges") == 4
    assert [(letter.event_id, letter.error) for letter in await list_dead_letters(control, tenant.tenant_id)] == [
        ("evt_2", "no such number")
    ]
    assert await count("control.pending_events") == 0


BODIES: dict[str, tuple[str | bytes, str]] = {
    "not UTF-8": (b'{"id": "evt_bad", "name": "\xff"}', "PostgreSQL does not accept its body as JSON"),
    "nested too deep for json": ('{"id": "evt_bad", "a": ' + "[" * 100_000, "PostgreSQL does not accept its body as JSON"),
    "nested too deep to read": ('{"id": "evt_bad", "a": ' + "[" * 2000 + "]" * 2000 + "}", "it is nested too deep"),
    "lone surrogate": ('{"id": "evt_bad", "name": "\\ud83d"}', "Input data was truncated"),
    "10,000 digits": ('{"id": "evt_bad", "amount": ' + "9" * 10_000 + "}", "Integer value out of range"),
    "no object": ('{"id": "evt_bad"}', "it carries no object"),
    "object is a list": ('{"id": "evt_bad", "data": {"object": []}}', "it carries no object"),
    "data is a number": ('{"id": "evt_bad", "data": 7}', "it carries no object"),
    "no type": ('{"id": "evt_bad", "created": 1, "data": {"object": {}}}', "type is missing"),
    "created is text": ('{"id": "evt_bad", "type": "a.b", "created": "now", "data": {"object": {}}}', "created is not an integer"),
}


@pytest.mark.both_isolations
@pytest.mark.parametrize(("body", "reason"), BODIES.values(), ids=BODIES)
async def test_event_that_cannot_be_read_becomes_a_dead_letter_and_stays_one(
    lane, tenant, make_delivery, count, control, now, body, reason
):
    deliveries = [make_delivery(tenant, body=json.dumps(charge_event(number))) for number in range(3)]
    deliveries[1] = make_delivery(tenant, body=body)
    await record_all(control, deliveries)

    with capture_logs() as logs:
        visited = await visit(lane, tenant, as_of=now)
        (letter,) = await list_dead_letters(control, tenant.tenant_id)
        retried = await retry_dead_letters(control, tenant.tenant_id, "evt_bad", as_of=now)
        again = await visit(lane, tenant, as_of=now)

    assert (visited, again) == (Visited(events=3, dead=1, more=False), Visited(events=1, dead=1, more=False))
    assert (await count("charges"), await count("events"), retried) == (2, 3, 1)
    assert letter.event_id == "evt_bad"
    assert letter.error.startswith(f"the event cannot be projected: {reason}")
    assert [entry.error for entry in await list_dead_letters(control, tenant.tenant_id)] == [letter.error]
    assert [entry["event"] for entry in logs] == ["visit.event_buried"] * 2


async def test_log_lines_of_a_visit_are_bounded_however_many_events_are_dead(lane, tenant, record, control, now, monkeypatch):
    def fail(event: object) -> object:
        raise AttributeError("nobody foresaw this")

    monkeypatch.setattr(visit_module, "read_event", fail)
    await record(*(charge_event(number) for number in range(50)))

    with capture_logs() as logs:
        visited = await visit(lane, tenant, as_of=now)

    assert visited.dead == len(await list_dead_letters(control, tenant.tenant_id)) == 50
    assert [entry["event"] for entry in logs] == ["visit.reader_failed"] + ["visit.event_buried"] * 20 + ["visit.events_buried"]


async def test_error_that_postgres_cannot_hold_is_stored_as_far_as_it_can(lane, tenant, record, control, now, monkeypatch):
    def fail(event: object) -> object:
        raise AttributeError("a\0\ud800" + "x" * 5000)

    monkeypatch.setattr(visit_module, "read_event", fail)
    await record(charge_event(1))

    with capture_logs():
        await visit(lane, tenant, as_of=now)

    (letter,) = await list_dead_letters(control, tenant.tenant_id)
    assert letter.error.startswith("AttributeError: a?xxx")
    assert len(letter.error) == 999  # 1,000 characters without the NUL


async def test_texts_of_any_length_stop_no_visit(lane, tenant, record, count, now):
    random = Random(7)
    long = "".join(chr(random.randrange(0x4E00, 0x9FFF)) for _ in range(20_000))
    card = {"type": "card", "card": {"fingerprint": long, "country": long}}
    twins = {"customer": None, "payment_method_details": card, "description": long, "failure_code": long, "created": 1_772_000_000}
    await record(*(charge_event(number, **twins) for number in range(10)))

    with capture_logs() as logs:
        visited = await visit(lane, tenant, as_of=now)

    assert visited == Visited(events=10, dead=0, more=False)
    assert await count("anomalies") > 0
    assert not [entry for entry in logs if entry["log_level"] == "error"]


async def test_visit_ends_after_its_bytes_and_the_next_goes_on(lane, tenant, record, count, now, monkeypatch):
    monkeypatch.setattr(visit_module, "VISIT_BYTES", 100_000)
    monkeypatch.setattr(visit_module, "READ_AT_ONCE", (3, 3))
    await record(*(charge_event(number, description="x" * 20_000) for number in range(10)))

    visits = [await visit(lane, tenant, as_of=now) for _ in range(3)]

    assert visits == [
        Visited(events=6, dead=0, more=True),  # the first slice has 61 kB, the second crosses the limit
        Visited(events=4, dead=0, more=False),
        Visited(events=0, dead=0, more=False),
    ]
    assert (await count("charges"), await count("control.pending_events")) == (10, 0)


async def test_one_event_larger_than_a_visits_bytes_is_processed(lane, tenant, record, count, now, monkeypatch):
    monkeypatch.setattr(visit_module, "VISIT_BYTES", 1)
    monkeypatch.setattr(visit_module, "READ_AT_ONCE", (1, 1))
    await record(*(charge_event(number) for number in range(2)))

    visits = [await visit(lane, tenant, as_of=now) for _ in range(3)]

    assert [one.events for one in visits] == [1, 1, 0]
    assert await count("charges") == 2


async def test_memory_of_a_visit_does_not_grow_with_its_events(lane, tenant, record, now):
    """100 events of 0.9 MB that compress to 1 MB together; Python's peak stays below the payloads of two claims."""
    for start in range(0, 100, 10):
        await record(*(charge_event(number, description="x" * 900_000) for number in range(start, start + 10)))
    await visit(lane, tenant, as_of=now, limit=1)  # connect and plan first

    tracemalloc.start()
    visited = await visit(lane, tenant, as_of=now)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert visited.more
    assert peak < 2 * visit_module.VISIT_BYTES + visit_module.READ_AT_ONCE[0] * 2**20


async def test_dead_letters_are_tried_again_one_or_all(lane, tenant, record, count, control, now, monkeypatch):
    await record(*(charge_event(number, amount="?") for number in range(3)))
    with capture_logs():
        await visit(lane, tenant, as_of=now)

    one = await retry_dead_letters(control, tenant.tenant_id, "evt_1", as_of=now)
    unknown = await retry_dead_letters(control, tenant.tenant_id, "evt_9", as_of=now)
    others = await retry_dead_letters(control, tenant.tenant_id + 1, None, as_of=now)
    waiting = await count("control.pending_events")
    rest = await retry_dead_letters(control, tenant.tenant_id, None, as_of=now)

    assert (one, unknown, others, waiting, rest) == (1, 0, 0, 1, 2)
    assert await list_dead_letters(control, tenant.tenant_id) == []
    with capture_logs():
        assert await visit(lane, tenant, as_of=now) == Visited(events=3, dead=3, more=False)


async def test_events_at_the_edge_of_what_postgres_holds_stop_no_visit(lane, tenant, record, count, now):
    extreme = {"amount": BIGGEST, "amount_captured": BIGGEST, "amount_refunded": BIGGEST, "disputed": True}
    twins = {"payment_intent": None, "customer": "cus_same", "payment_method_details": {"type": "card", "card": {"fingerprint": "fp_same"}}}
    refused = {"status": "failed", "failure_code": "card_declined", "outcome": {"type": "blocked", "reason": "highest_risk_level"}}
    await record(*(charge_event(number, **extreme, **twins) for number in range(6)))
    await record(*(charge_event(number, **extreme, **refused, customer="cus_same") for number in range(10, 60)))
    invoices = [
        {
            "id": f"evt_i{number}",
            "object": "event",
            "type": "invoice.paid",
            "created": 1_772_000_000,
            "livemode": True,
            "data": {
                "object": {
                    "id": f"in_{number}",
                    "object": "invoice",
                    "currency": "usd",
                    "created": 1_772_000_000,
                    "status": "paid",
                    "total": -BIGGEST,
                    "subtotal": -BIGGEST,
                    "amount_due": 0,
                    "amount_paid": BIGGEST,
                    "starting_balance": BIGGEST,
                    "ending_balance": -BIGGEST,
                    "billing_reason": "subscription_cycle",
                }
            },
        }
        for number in range(3)
    ]
    await record(*invoices)

    with capture_logs():
        visited = await visit(lane, tenant, as_of=now)

    assert visited.events == 59
    assert await count("control.pending_events") == 0


async def test_what_time_ends_is_settled_when_it_is_due_and_not_before(lane, tenant, control, count, now):
    await control.execute("INSERT INTO control.due_visits (tenant_id, kind, due_at) VALUES ($1, 'settle', $2)", tenant.tenant_id, now)

    await visit(lane, tenant, as_of=now - timedelta(seconds=1))
    not_yet = await count("control.due_visits")
    await visit(lane, tenant, as_of=now)

    assert (not_yet, await count("control.due_visits")) == (1, 0)


@pytest.fixture
def judged(monkeypatch) -> list[tuple[datetime, datetime]]:
    """The spans of time that visits have judged."""
    spans: list[tuple[datetime, datetime]] = []

    async def judge_time(connection, *, since, until, **options) -> DetectionOutcome:
        spans.append((since, until))
        return await engine.judge_time(connection, since=since, until=until, **options)

    monkeypatch.setattr(judgement, "judge_time", judge_time)
    return spans


async def test_a_tenants_first_events_plan_the_first_judgement_of_time(lane, tenant, record, control, now, judged):
    await record(charge_event(1))

    await visit(lane, tenant, as_of=now)

    [row] = await control.fetch("SELECT kind, due_at, since FROM control.due_visits")
    assert (row["kind"], row["since"]) == ("evaluate", None)
    assert now < row["due_at"] < now + timedelta(hours=1)
    assert judged == []


async def test_time_is_judged_once_for_each_hour_however_often_the_tenant_is_visited(lane, tenant, record, now, judged):
    hour = now.replace(minute=0, second=0, microsecond=0)
    await record(charge_event(1))

    await visit(lane, tenant, as_of=now, judge_now=True)
    for minutes in (1, 10, 20, 70, 71):
        await visit(lane, tenant, as_of=hour + timedelta(minutes=minutes + 60))

    assert [until for _, until in judged] == [hour, hour + timedelta(hours=1), hour + timedelta(hours=2)]
    assert [since for since, _ in judged[1:]] == [until for _, until in judged[:-1]]


async def test_after_downtime_the_hours_that_nobody_judged_are_judged(lane, tenant, record, now, judged):
    hour = now.replace(minute=0, second=0, microsecond=0)
    await record(charge_event(1))
    await visit(lane, tenant, as_of=now, judge_now=True)

    await visit(lane, tenant, as_of=hour + timedelta(hours=30, minutes=30))

    assert judged[-1] == (hour, hour + timedelta(hours=30))


async def test_time_is_not_judged_while_events_wait(lane, tenant, record, now, judged):
    await record(*(charge_event(number) for number in range(5)))

    await visit(lane, tenant, as_of=now, limit=3, judge_now=True)
    too_early = list(judged)
    await visit(lane, tenant, as_of=now, limit=3, judge_now=True)

    assert too_early == []
    assert len(judged) == 1


async def test_time_is_not_evaluated_while_bytes_end_the_visit(lane, tenant, record, now, judged, monkeypatch):
    monkeypatch.setattr(visit_module, "VISIT_BYTES", 1)
    monkeypatch.setattr(visit_module, "READ_AT_ONCE", (4, 4))
    await record(*(charge_event(number) for number in range(5)))

    await visit(lane, tenant, as_of=now, judge_now=True)
    too_early = list(judged)
    monkeypatch.setattr(visit_module, "VISIT_BYTES", 100_000)
    await visit(lane, tenant, as_of=now, judge_now=True)

    assert too_early == []
    assert len(judged) == 1


async def test_a_tenant_is_judged_from_its_first_row(lane, tenant, record, now, judged):
    await record(charge_event(1), charge_event(2))

    await visit(lane, tenant, as_of=now, judge_now=True)

    assert judged[0][0] == datetime.fromtimestamp(charge_event(1)["created"], UTC)


async def test_a_tenant_without_anything_has_no_time_to_judge(lane, tenant, now, judged):
    await visit(lane, tenant, as_of=now, judge_now=True)

    assert judged == []


async def test_charge_at_the_end_of_the_year_9999_is_processed(control, lane, tenant, record, now):
    await record(charge_event(1))
    await visit(lane, tenant, as_of=now, judge_now=True)
    await record(charge_event(2, created=253_402_300_799))

    done = await visit(lane, tenant, as_of=now)

    assert (done.events, done.dead) == (1, 0)
    assert await control.fetchval("SELECT count(*) FROM control.pending_events") == 0


async def test_dead_letters_of_many_visits_get_twenty_log_lines_a_minute(lane, tenant, record, now):
    with capture_logs() as logs:
        for visit_number in range(4):
            await record(*(charge_event(100 * visit_number + number, amount="much") for number in range(30)))
            await visit(lane, tenant, as_of=now)

    assert [entry["event"] for entry in logs] == ["visit.event_buried"] * 20 + ["visit.events_buried"]
