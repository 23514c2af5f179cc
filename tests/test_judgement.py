"""A detector that fails holds up neither events nor other detectors, and judges later what it could not judge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from billingwatch import judgement, metrics
from billingwatch.detection import engine
from billingwatch.detection.registry import DETECTORS
from billingwatch.detection.store import Anomaly, AnomalyFilter, list_anomalies
from billingwatch.ingest.record import record_events
from billingwatch.judgement import REJUDGED_AFTER
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.visit import Visited, visit
from billingwatch.visit import sql as visit_sql

BROKEN = "SELECT FROM charges AS c WHERE c.amount / (look.number - look.number) > 0"
OVERFLOWING = (
    "SELECT (c.amount * 9223372036854775807)::bigint FROM charges AS c WHERE c.created_at BETWEEN $1 AND $2 AND $3::interval IS NOT NULL"
)
Find = Callable[..., Awaitable[list[Anomaly]]]


def charge_event(number: int, at: datetime, *, amount: int = 2000) -> dict[str, Any]:
    created = int(at.timestamp())
    charge = {
        "id": f"ch_{number}",
        "object": "charge",
        "amount": amount,
        "currency": "usd",
        "created": created,
        "status": "succeeded",
        "captured": True,
        "customer": "cus_same",
        "payment_intent": f"pi_{number}",
    }
    return {
        "id": f"evt_{number}",
        "object": "event",
        "type": "charge.succeeded",
        "created": created,
        "livemode": True,
        "data": {"object": charge},
    }


def credit_event(number: int, at: datetime) -> dict[str, Any]:
    created = int(at.timestamp())
    invoice = {
        "id": f"in_{number}",
        "object": "invoice",
        "currency": "usd",
        "created": created,
        "status": "paid",
        "total": -500,
        "subtotal": -500,
        "amount_due": 0,
        "amount_paid": 0,
        "billing_reason": "manual",
    }
    return {
        "id": f"evt_i{number}",
        "object": "event",
        "type": "invoice.paid",
        "created": created,
        "livemode": True,
        "data": {"object": invoice},
    }


@pytest.fixture
def lane(open_lane):
    return open_lane("work")


@pytest.fixture
def record(control, tenant, make_delivery):
    async def record(*events: dict[str, Any]) -> None:
        await record_events(control, [make_delivery(tenant, body=json.dumps(event)) for event in events])

    return record


@pytest.fixture
def find(connect, tenant) -> Find:
    async def find() -> list[Anomaly]:
        async with tenant_scope(await connect(), tenant) as scoped:
            return await list_anomalies(scoped, AnomalyFilter(), limit=100)

    return find


@pytest.fixture
def postponed(control):
    async def postponed() -> list[tuple[str, datetime, datetime]]:
        rows = await control.fetch("SELECT kind, due_at, since FROM control.due_visits WHERE kind ~ '^rejudge' ORDER BY kind")
        return [tuple(row) for row in rows]

    return postponed


@pytest.fixture
def breaking(monkeypatch):
    """Detectors with other SQL, until the test ends or mends them."""

    def breaking(**changes: dict[str, Any]) -> None:
        replaced = {name: msgspec.structs.replace(DETECTORS[name], **fields) for name, fields in changes.items()}
        monkeypatch.setattr(engine, "DETECTORS", MappingProxyType({**DETECTORS, **replaced}))
        engine._stirred_statement.cache_clear()

    yield breaking
    monkeypatch.undo()
    engine._stirred_statement.cache_clear()


@pytest.mark.parametrize("fields", [{"candidates": BROKEN}, {"incidents": OVERFLOWING}], ids=["candidates", "incidents"])
async def test_a_detector_that_fails_holds_up_neither_events_nor_other_detectors(
    lane, tenant, record, find, postponed, control, breaking, now, fields
):
    breaking(duplicate_charge={**fields, "parameters": lambda _: (timedelta(0),)})
    await record(charge_event(1, now), charge_event(2, now + timedelta(seconds=5)), credit_event(1, now))
    before = metrics.detection_failures.labels("duplicate_charge")._value.get()

    with capture_logs() as logs:
        visited = await visit(lane, tenant, as_of=now)

    assert visited == Visited(events=3, dead=0, more=False)
    assert await control.fetchval("SELECT count(*) FROM control.pending_events") == 0
    assert [anomaly.detector for anomaly in await find()] == ["negative_invoice"]
    assert await postponed() == [("rejudge:duplicate_charge", now + REJUDGED_AFTER, now)]
    assert metrics.detection_failures.labels("duplicate_charge")._value.get() == before + 1
    (failure,) = [entry for entry in logs if entry["event"] == "visit.detector_failed"]
    assert (failure["tenant"], failure["detector"]) == (tenant.name, "duplicate_charge")


async def test_what_it_could_not_judge_it_judges_later_and_nothing_is_lost(lane, tenant, record, find, postponed, breaking, now):
    breaking(duplicate_charge={"candidates": BROKEN})
    await record(charge_event(1, now), charge_event(2, now + timedelta(seconds=5)))
    with capture_logs():
        await visit(lane, tenant, as_of=now)
    # While it waits, something else arrives, which also lies earlier.
    await record(*(charge_event(number, now - timedelta(hours=5, seconds=number), amount=700) for number in (3, 4)))
    await record(credit_event(1, now))
    with capture_logs() as meanwhile:
        await visit(lane, tenant, as_of=now + timedelta(minutes=1))
    waiting = await postponed()

    breaking()
    await visit(lane, tenant, as_of=now + REJUDGED_AFTER)

    assert [entry for entry in meanwhile if entry["event"] == "visit.detector_failed"] == [], "it is not asked before it is due"
    assert waiting == [("rejudge:duplicate_charge", now + REJUDGED_AFTER, now - timedelta(hours=5, seconds=4))]
    assert await postponed() == []
    assert {(anomaly.detector, anomaly.subject) for anomaly in await find()} == {
        ("duplicate_charge", "cus_same 2000 usd"),
        ("duplicate_charge", "cus_same 700 usd"),
        ("negative_invoice", "in_1"),
    }
    assert not any(anomaly.historical for anomaly in await find())


async def test_it_is_asked_again_once_in_a_while_while_it_fails(lane, tenant, record, postponed, control, breaking, now):
    breaking(duplicate_charge={"candidates": BROKEN})
    await record(charge_event(1, now), charge_event(2, now + timedelta(seconds=5)))

    with capture_logs() as logs:
        for minutes in range(25):
            await visit(lane, tenant, as_of=now + timedelta(minutes=minutes))

    assert len([entry for entry in logs if entry["event"] == "visit.detector_failed"]) == 3
    assert await postponed() == [("rejudge:duplicate_charge", now + timedelta(minutes=20) + REJUDGED_AFTER, now)]


async def test_a_failure_in_python_is_a_failure_too_and_leaves_nothing_half_written(
    lane, tenant, record, find, postponed, breaking, now, monkeypatch
):
    def fail(*_: object) -> None:
        raise KeyError("charges")

    breaking(negative_invoice={"judge": fail})
    await record(charge_event(1, now), charge_event(2, now + timedelta(seconds=5)), credit_event(1, now))

    with capture_logs() as logs:
        await visit(lane, tenant, as_of=now)

    assert [anomaly.detector for anomaly in await find()] == ["duplicate_charge"]
    assert [kind for kind, _, _ in await postponed()] == ["rejudge:negative_invoice"]
    assert [entry["error"] for entry in logs if entry["event"] == "visit.detector_failed"] == ["KeyError: 'charges'"]


async def test_a_detector_of_time_judges_later_the_instants_that_it_missed(lane, tenant, record, find, postponed, breaking, now):
    every_hour = {
        "every": timedelta(hours=1),
        "watches": {},
        "settles": False,
        "candidates": "SELECT",
        "incidents": "SELECT t AS created_at FROM generate_series($1::timestamptz, $2::timestamptz, interval '1 hour') AS t"
        " WHERE extract(hour FROM t) IN (13, 15) AND $3::bigint > 0",
        "judge": lambda row, thresholds: DETECTORS["negative_invoice"].judge(
            {
                **dict.fromkeys(("number", "customer_id", "subscription_id", "finalized_at", "withdrawn_at", "billing_reason", "status")),
                "invoice_id": "hour",
                "account": "",
                "created_at": row["created_at"],
                "total": -1,
                "currency": "usd",
                "event_id": "evt_1",
            },
            thresholds,
        ),
    }
    await record(charge_event(1, now - timedelta(minutes=30)))
    breaking(negative_invoice=every_hour)
    await visit(lane, tenant, as_of=now, judge_now=True)

    breaking(negative_invoice={**every_hour, "incidents": "SELECT 1 / 0, $1::timestamptz, $2::timestamptz, $3::bigint"})
    with capture_logs():
        await visit(lane, tenant, as_of=now + timedelta(hours=1), judge_now=True)
        waiting = await postponed()
        await visit(lane, tenant, as_of=now + timedelta(hours=1, minutes=5))
    breaking(negative_invoice=every_hour)
    await visit(lane, tenant, as_of=now + timedelta(hours=3), judge_now=True)

    assert [(kind, since) for kind, _, since in waiting] == [("rejudge:negative_invoice", now + timedelta(hours=1))]
    assert await postponed() == []
    assert sorted(anomaly.opened_at.astimezone(UTC).hour for anomaly in await find()) == [13, 15]


async def test_a_detector_that_was_turned_off_meanwhile_waits_for_nothing(lane, tenant, record, postponed, breaking, now, monkeypatch):
    breaking(duplicate_charge={"candidates": BROKEN})
    await record(charge_event(1, now), charge_event(2, now + timedelta(seconds=5)))
    with capture_logs():
        await visit(lane, tenant, as_of=now)

    monkeypatch.setattr(judgement, "tuning_of", lambda _: engine.Tuning(off=frozenset({"duplicate_charge"})))
    await visit(lane, tenant, as_of=now + REJUDGED_AFTER)

    assert await postponed() == []


async def test_a_lost_connection_is_no_detectors_fault(lane, tenant, record, postponed, control, now, monkeypatch):
    await record(charge_event(1, now))
    detect = judgement.detect

    async def lose(connection: Any, *arguments: Any, **options: Any) -> Any:
        await control.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
        return await detect(connection, *arguments, **options)

    monkeypatch.setattr(judgement, "detect", lose)
    with pytest.raises(Exception, match="database is unavailable"):
        await visit(lane, tenant, as_of=now)
    monkeypatch.undo()
    await asyncio.sleep(0)

    assert await postponed() == []
    assert (await visit(lane, tenant, as_of=now)).events == 1


@pytest.fixture
def due(control):
    """(kind, due_at, since) of the visits that are planned, and whether the processor's poll finds the tenant."""

    async def due(as_of: datetime) -> tuple[list[tuple[str, datetime, datetime]], bool]:
        rows = await control.fetch("SELECT kind, due_at, since FROM control.due_visits ORDER BY kind")
        found = await control.fetch(visit_sql["tenants_with_work"], as_of, as_of + judgement.FURTHEST)
        return [tuple(row) for row in rows], bool(found)

    return due


async def test_detectors_of_time_run_again_after_the_clock_was_ahead(lane, tenant, record, due, now, monkeypatch):
    judged: list[tuple[datetime, datetime]] = []

    async def noted_judge_time(connection, *, since, until, **options):
        judged.append((since, until))
        return await engine.judge_time(connection, since=since, until=until, **options)

    monkeypatch.setattr(judgement, "judge_time", noted_judge_time)
    await record(charge_event(1, now - timedelta(minutes=30)))
    await visit(lane, tenant, as_of=now, judge_now=True)
    await visit(lane, tenant, as_of=now + timedelta(days=2, hours=2))
    later = now + timedelta(hours=1, minutes=10)
    _, found = await due(later)
    judged.clear()

    await visit(lane, tenant, as_of=later)
    [(_, due_at, since)], found_again = await due(later)
    await visit(lane, tenant, as_of=due_at)

    assert found
    assert not found_again
    assert later < due_at <= later + judgement.FURTHEST
    assert since == now + timedelta(hours=1)
    assert judged == [(now, now + timedelta(hours=1)), (now + timedelta(hours=1), now + timedelta(hours=2))]


@pytest.mark.parametrize("kind", ["settle", "rejudge:duplicate_charge"])
async def test_visit_planned_by_a_clock_that_was_ahead_is_due(lane, tenant, due, control, now, kind):
    far = now + timedelta(days=2)
    await control.execute("INSERT INTO control.due_visits VALUES ($1, $2, $3, $4)", tenant.tenant_id, kind, far, now)
    _, found = await due(now)

    await visit(lane, tenant, as_of=now)

    assert found
    assert await due(now) == ([], False)


async def test_long_settlement_is_planned_within_an_hour(lane, tenant, record, due, find, breaking, now):
    breaking(duplicate_charge={"settles": True, "quiet": lambda _: timedelta(hours=5)})
    await record(charge_event(1, now), charge_event(2, now + timedelta(seconds=5)))
    await visit(lane, tenant, as_of=now)
    planned, _ = await due(now)

    await visit(lane, tenant, as_of=now + timedelta(hours=1))
    again, _ = await due(now)

    assert [anomaly.status for anomaly in await find()] == ["open"]
    assert ("settle", now + timedelta(hours=1), None) in planned
    assert ("settle", now + timedelta(hours=2), None) in again


async def test_long_absence_is_evaluated_week_by_week_each_committed(lane, tenant, record, now, control):
    await record(charge_event(1, now - timedelta(days=30)), charge_event(2, now - timedelta(hours=1)))
    evaluated: list[datetime] = []

    done = await visit(lane, tenant, as_of=now, judge_now=True)
    while done.behind:
        since = "SELECT since FROM control.due_visits WHERE tenant_id = $1 AND kind = 'evaluate'"
        evaluated.append(await control.fetchval(since, tenant.tenant_id))
        done = await visit(lane, tenant, as_of=now, judge_now=True)

    assert len(evaluated) == 4
    assert all(later - earlier == timedelta(weeks=1) for earlier, later in pairwise(evaluated))


async def test_detector_that_failed_evaluates_week_by_week(lane, tenant, record, now, find, breaking, postponed):
    early, late = now - timedelta(days=20), now - timedelta(days=3)
    breaking(negative_invoice={"incidents": "SELECT 1 / 0, $1::timestamptz, $2::timestamptz, $3::bigint"})
    with capture_logs():
        await record(credit_event(1, early), credit_event(2, late))
        await visit(lane, tenant, as_of=now)
    breaking()

    first = await visit(lane, tenant, as_of=now + REJUDGED_AFTER)
    [(_, _, since)] = await postponed()
    while (await visit(lane, tenant, as_of=now + REJUDGED_AFTER)).behind:
        pass

    assert (first.behind, since) == (True, early + timedelta(weeks=1))
    assert len([one for one in await find() if one.detector == "negative_invoice"]) == 2
    assert await postponed() == []


@pytest.mark.parametrize(("late", "evaluated"), [(timedelta(0), 0), (REJUDGED_AFTER, 1)])
async def test_backlog_delays_a_failed_detector_by_ten_minutes_at_most(lane, tenant, record, now, find, breaking, late, evaluated):
    breaking(negative_invoice={"incidents": "SELECT 1 / 0, $1::timestamptz, $2::timestamptz, $3::bigint"})
    with capture_logs():
        await record(credit_event(1, now))
        await visit(lane, tenant, as_of=now)
    breaking()
    await record(charge_event(1, now), charge_event(2, now))

    visited = await visit(lane, tenant, as_of=now + REJUDGED_AFTER + late, limit=1)

    assert visited.more
    assert len([one for one in await find() if one.detector == "negative_invoice"]) == evaluated
