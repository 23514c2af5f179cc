"""Fairness: one tenant's calls hold up no other tenant, on no lane; filtered listings do bounded work per page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from billingwatch.detection import store
from billingwatch.ingest import events
from billingwatch.settings import Settings
from billingwatch.tenancy import budget
from billingwatch.tenancy.provision import Provisioned
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.tenants import Tenant

from .conftest import bearer, event, post, raw, running

Acme = tuple[Tenant, Provisioned]
Get = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
async def neighbours(provision_tenant: Any) -> tuple[Acme, Acme]:
    """Two tenants of one read lane, where there are two lanes."""
    made = [await provision_tenant(name) for name in ("first", "second", "third")]
    assert made[0][0].tenant_id % 2 == made[2][0].tenant_id % 2
    return made[0], made[2]


@pytest.fixture
async def two_lanes(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    with running(raw(settings, read_lanes=2)) as address:
        limits = httpx.Limits(max_connections=60)
        async with httpx.AsyncClient(base_url=address, timeout=30, limits=limits) as client:
            yield client


async def blocked(control: Any, tenant: Tenant) -> int:
    """Return how many backends wait for a lock on the tenant's tables."""
    query = (
        "SELECT count(DISTINCT l.pid) FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation"
        " WHERE NOT l.granted AND c.relnamespace = $1::regnamespace"
    )
    count: int = await control.fetchval(query, tenant.schema_name)
    return count


async def until_blocked(control: Any, tenant: Tenant, count: int = 1) -> None:
    async with asyncio.timeout(10):
        while await blocked(control, tenant) < count:
            await asyncio.sleep(0.01)


async def test_tenant_with_forty_stuck_calls_leaves_the_other_lane_to_its_neighbour(
    two_lanes: httpx.AsyncClient, neighbours: tuple[Acme, Acme], control: Any, connect: Any
) -> None:
    busy, other = neighbours
    async with tenant_scope(await connect(), busy[0]) as scoped:
        await scoped.execute("LOCK TABLE events")
        calls = [asyncio.create_task(two_lanes.get("/events", headers=bearer(busy[1]))) for _ in range(40)]
        await until_blocked(control, busy[0])

        answers = [await two_lanes.get("/anomalies", headers=bearer(other[1]), timeout=5) for _ in range(3)]
        waiting = await blocked(control, busy[0])
        unfinished = sum(not call.done() for call in calls)

    assert [answer.status_code for answer in answers] == [200] * 3
    assert (waiting, unfinished) == (1, 40)  # one statement of a tenant at a time
    assert {(await call).status_code for call in calls} == {200}


async def test_tenants_that_backtest_take_turns_and_queue_a_few(
    two_lanes: httpx.AsyncClient, neighbours: tuple[Acme, Acme], control: Any, connect: Any
) -> None:
    busy, other = neighbours

    def backtest(made: Provisioned) -> Awaitable[httpx.Response]:
        return two_lanes.post("/detectors/fraud_spike/backtest", headers=bearer(made), json={})

    async with tenant_scope(await connect(), busy[0]) as scoped:
        await scoped.execute("LOCK TABLE disputes")
        calls = [asyncio.create_task(backtest(busy[1])) for _ in range(6)]
        await until_blocked(control, busy[0])

        refused, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        neighbours_answer = await asyncio.wait_for(backtest(other[1]), 10)
        waiting = await blocked(control, busy[0])

    answers = [await call for call in calls]
    assert (neighbours_answer.status_code, waiting) == (200, 1)
    assert [each.result().status_code for each in refused] == [429]
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429]


async def test_calls_beyond_the_budget_are_429_with_the_time_to_wait(
    two_lanes: httpx.AsyncClient, neighbours: tuple[Acme, Acme], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, other = neighbours
    monkeypatch.setattr(budget, "WAIT_LIMIT", 0.0)
    monkeypatch.setattr(budget, "REFUSAL_PAUSE", 0.0)
    monkeypatch.setattr(budget, "BURST_SECONDS", 0.01)
    monkeypatch.setattr(budget, "CALL_SECONDS", 10.0)

    answers = [await two_lanes.get("/detectors/no_such", headers=bearer(busy[1])) for _ in range(3)]
    neighbours_answer = await two_lanes.get("/events", headers=bearer(other[1]))

    assert [answer.status_code for answer in answers] == [404, 429, 429]
    assert 30 < int(answers[1].headers["retry-after"]) <= 40  # 10 seconds of cost at a quarter
    assert answers[1].json()["detail"] == "the tenant's API calls take more time than one tenant may use"
    assert answers[1].headers["content-type"] == "application/problem+json"
    assert neighbours_answer.status_code == 200


async def test_time_on_a_lane_counts_against_the_budget(
    two_lanes: httpx.AsyncClient, neighbours: tuple[Acme, Acme], connect: Any, control: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, _ = neighbours
    monkeypatch.setattr(budget, "WAIT_LIMIT", 0.0)
    monkeypatch.setattr(budget, "REFUSAL_PAUSE", 0.0)
    monkeypatch.setattr(budget, "BURST_SECONDS", 0.2)
    async with tenant_scope(await connect(), busy[0]) as scoped:
        await scoped.execute("LOCK TABLE events")
        call = asyncio.create_task(two_lanes.get("/events", headers=bearer(busy[1])))
        await until_blocked(control, busy[0])
        await control.execute("SELECT pg_sleep(0.5)")

    assert (await call).status_code == 200
    assert (await two_lanes.get("/events", headers=bearer(busy[1]))).status_code == 429


async def test_query_that_takes_too_long_is_503(settings: Settings, neighbours: tuple[Acme, Acme], connect: Any) -> None:
    busy, _ = neighbours
    with running(raw(settings, statement_timeout=1)) as address:
        async with httpx.AsyncClient(base_url=address, timeout=30) as http, tenant_scope(await connect(), busy[0]) as scoped:
            await scoped.execute("LOCK TABLE events; LOCK TABLE anomalies")
            answers = [await http.get(path, headers=bearer(busy[1])) for path in ("/events", "/anomalies", "/stats/detectors")]

    assert [answer.status_code for answer in answers] == [503] * 3
    assert {answer.json()["detail"] for answer in answers} == {"the query took longer than the service allows"}
    assert all(answer.headers["retry-after"] for answer in answers)


async def pages(get: Get, path: str, key: str, **params: str) -> list[list[dict[str, Any]]]:
    """Follow `next_cursor` to the last page."""
    found: list[list[dict[str, Any]]] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = (await get(path, params=params | ({"cursor": cursor} if cursor else {}))).json()
        found.append(answer[key])
        cursor = answer["next_cursor"]
        assert len(found) < 50
    return found


async def test_filtered_pages_of_events_read_a_bounded_number_of_rows(
    http: httpx.AsyncClient, acme: Acme, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "SCAN_LIMIT", 4)
    for number in range(10):
        kind = "invoice.paid" if number in {0, 9} else "charge.succeeded"
        assert (await post(http, acme[1].webhook_token, event(f"evt_{number}", kind=kind))).status_code == 200

    async def get(path: str, **options: Any) -> httpx.Response:
        return await http.get(path, headers=bearer(acme[1]), **options)

    paid = await pages(get, "/events", "events", type="invoice.paid")
    charges = await pages(get, "/events", "events", type="charge.succeeded", limit="3")
    nothing = await pages(get, "/events", "events", type="nope")
    unfiltered = await pages(get, "/events", "events", limit="10")

    assert [[row["event_id"] for row in page] for page in paid] == [["evt_9"], [], ["evt_0"]]
    assert [row["event_id"] for page in charges for row in page] == [f"evt_{number}" for number in range(8, 0, -1)]
    assert nothing == [[], [], []]
    assert [len(page) for page in unfiltered] == [10, 0]


async def test_filtered_pages_of_anomalies_read_a_bounded_number_of_rows(
    http: httpx.AsyncClient, acme: Acme, control: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SCAN_LIMIT", 4)
    await control.execute(
        f"""
        INSERT INTO {acme[0].schema_name}.anomalies (
            anomaly_id, detector, subject, fingerprint, status, severity, summary, opened_at, last_seen_at, detected_at,
            updated_at, amounts, evidence
        )
        SELECT gen_random_uuid(), 'fraud_spike', 's' || n, 'f' || n, 'open', CASE WHEN n % 9 = 0 THEN 'critical' ELSE 'info' END,
               's', now() - n * interval '1 hour', now(), now(), now(), '{{}}', '{{}}'
        FROM generate_series(0, 9) AS n
        """
    )

    async def get(path: str, **options: Any) -> httpx.Response:
        return await http.get(path, headers=bearer(acme[1]), **options)

    critical = await pages(get, "/anomalies", "anomalies", severity="critical")
    everything = await pages(get, "/anomalies", "anomalies", limit="3")
    muted = await pages(get, "/anomalies", "anomalies", muted="true")

    assert [[row["subject"] for row in page] for page in critical] == [["s0"], [], ["s9"]]
    assert [row["subject"] for page in everything for row in page] == [f"s{number}" for number in range(10)]
    assert muted == [[], [], []]
