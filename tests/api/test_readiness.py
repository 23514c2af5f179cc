"""Readiness and deadlines: an answer within seconds, whatever the database does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

from billingwatch import metrics
from billingwatch.errors import NotReady
from billingwatch.readiness import KEY, NO_PROCESSOR, PROCESSOR, SILENT
from billingwatch.service import Service
from billingwatch.tenancy.fleet_settings import write_key_check
from billingwatch.tenancy.processors import register_processor
from billingwatch.tenancy.sealing import Seal

from .conftest import bearer, event, post, running

OTHER_KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
SECONDS = 60  # a generous limit for what takes at most 10 s on an idle machine


@asynccontextmanager
async def client_of(settings, **options) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, whose start may need this event loop."""
    server = running(settings, **options)
    url = await asyncio.to_thread(server.__enter__)
    try:
        async with httpx.AsyncClient(base_url=url, timeout=SECONDS) as client:
            yield client
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)


async def ready(client: httpx.AsyncClient) -> httpx.Response:
    async with asyncio.timeout(SECONDS):
        while (answer := await client.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.05)
    return answer


def conditions(answer: httpx.Response) -> list[str]:
    return [condition["message"] for condition in answer.json()["errors"]]


@pytest.fixture
async def service(settings, database) -> AsyncIterator[Service]:
    service = Service(settings, database)
    await service.start()
    async with asyncio.timeout(SECONDS):
        while await failing(service):
            await asyncio.sleep(0.02)
    yield service
    with capture_logs() as logs:
        await service.close()
    assert [entry for entry in logs if entry["log_level"] not in {"debug", "info"}] == []


async def failing(service: Service) -> list[str]:
    try:
        await service.readiness.check()
    except NotReady as error:
        return [fault["message"] for fault in error.facts["faults"]]
    return []


async def test_service_that_processes_becomes_ready(http):
    answer = await ready(http)

    assert answer.json() == {"status": "ok"}


async def test_service_without_any_processor_is_not_ready(settings, control):
    async with client_of(settings, processing=False) as client:
        alone = await client.get("/health/ready")
        await register_processor(control)
        together = await client.get("/health/ready")
        await control.execute("UPDATE control.processors SET reported_at = now() - interval '31 s'")
        missing = await client.get("/health/ready")
        await control.execute("UPDATE control.processors SET reported_at = now() + interval '2 days'")
        jumped = await client.get("/health/ready")

    assert alone.status_code == missing.status_code == jumped.status_code == 503
    assert alone.headers["content-type"] == "application/problem+json"
    assert int(alone.headers["retry-after"]) > 0
    assert conditions(alone) == conditions(missing) == conditions(jumped) == [NO_PROCESSOR]
    assert NO_PROCESSOR in alone.json()["detail"]
    assert together.status_code == 200


async def test_processor_deletes_its_row_when_it_closes(settings, control):
    async with client_of(settings) as client:
        await ready(client)
        during = await control.fetchval("SELECT count(*) FROM control.processors")

    assert during == 1
    assert await control.fetchval("SELECT count(*) FROM control.processors") == 0


async def test_frozen_database_is_answered_within_seconds(settings, road, acme, control):
    _, provisioned = acme
    token = provisioned.webhook_token
    async with client_of(msgspec.structs.replace(settings, database_url=road.dsn)) as client:
        await ready(client)
        assert (await post(client, token, event("evt_before"))).status_code == 200
        road.freeze()
        probe = await client.get("/health/ready")
        answers = await asyncio.gather(
            post(client, token, event("evt_frozen")),
            post(client, "unknown", event("evt_unknown")),
            client.get("/events", headers=bearer(provisioned)),
            client.get("/detectors", headers=bearer(provisioned)),
            client.get("/metrics"),
        )
        probes = await asyncio.gather(*(client.get("/health/ready") for _ in range(20)))
        road.thaw()
        await ready(client)
        async with asyncio.timeout(SECONDS):
            while (await post(client, token, event("evt_after"))).status_code != 200:
                await asyncio.sleep(0.1)
        read = await client.get("/events", headers=bearer(provisioned))

    seconds = [answer.elapsed.total_seconds() for answer in answers]
    assert [answer.status_code for answer in answers] == [503, 503, 503, 503, 200]
    assert max(seconds) < 20  # the statement time-out alone would be 30 s
    assert {one.status_code for one in [probe, *probes]} == {503}
    assert SILENT in conditions(probe)
    assert all(answer.headers["retry-after"] for answer in answers[:4])
    assert {"evt_before", "evt_after"} <= {item["event_id"] for item in read.json()["events"]}


async def test_service_closes_while_the_database_is_frozen(settings, road, acme):
    service = Service(msgspec.structs.replace(settings, database_url=road.dsn), road.dsn)
    await service.start()
    road.freeze()
    await failing(service)

    async with asyncio.timeout(SECONDS):
        await service.close()


async def test_changed_secret_key_makes_the_service_unready(service, control):
    await write_key_check(control, Seal([OTHER_KEY]))

    assert await failing(service) == [KEY]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (lambda service: service.processor._workers[1], PROCESSOR),
        (lambda service: service.processor._poller, PROCESSOR),
        (lambda service: service.recorder.lanes[0]._task, "a task of ingest 0 that records events has ended"),
        (lambda service: service.recorder.lanes[1]._check, "a task of ingest 1 that records events has ended"),
        (lambda service: service.recorder.lanes[0]._locked._watch, "a task of ingest 0 that records events has ended"),
    ],
    ids=["work lane", "poll", "recorder", "deadline", "locks"],
)
async def test_each_ended_task_makes_the_service_unready(service, task, expected):
    await task(service).stop()

    assert await failing(service) == [expected]


async def test_refused_batch_makes_the_service_unready(service):
    service.recorder.lanes[1]._refuse([], "the disk is full")

    assert await failing(service) == ["ingest 1 could not record its last events"]


async def test_each_change_of_readiness_is_logged_once(service, control):
    with capture_logs() as logs:
        for seal in (Seal([OTHER_KEY]), service._seal):
            await write_key_check(control, seal)
            for _ in range(3):
                await failing(service)

    changes = [(entry["event"], entry.get("conditions")) for entry in logs if entry["event"].startswith("service.")]
    assert changes == [
        ("service.not_ready", [KEY]),
        ("service.ready", None),
    ]


async def test_concurrent_checks_share_one_query(service, control):
    async with service.health.hold():
        checks = [asyncio.create_task(failing(service)) for _ in range(50)]
        await asyncio.sleep(0.05)
        waiting = service.health.waiting
    await asyncio.gather(*checks)

    assert waiting <= 2  # the holder and this query


async def test_queue_for_the_control_lane_does_not_change_readiness(service):
    async with service.control.hold():
        assert await failing(service) == []


async def test_concurrent_requests_for_metrics_share_one_query(service):
    async with service.health.hold():
        asked = [asyncio.create_task(service.exposition.text()) for _ in range(50)]
        await asyncio.sleep(0.05)
        waiting = service.health.waiting
    texts = await asyncio.gather(*asked)

    assert waiting <= 2  # the holder and this query
    assert len(set(texts)) == 1
    assert await service.exposition.text() == texts[0]  # kept, because many shared it


async def test_single_requests_for_metrics_each_get_a_new_text(service):
    first = await service.exposition.text()

    metrics.events.labels("recorded").inc()

    assert await service.exposition.text() != first


async def test_undecryptable_secret_gets_503_and_leaves_a_trace(settings, acme, control):
    await control.execute("UPDATE control.signing_secrets SET ciphertext = $1", Seal([OTHER_KEY]).encrypt("whsec_other"))
    await write_key_check(control, Seal([settings.secret_key]))
    async with client_of(settings) as client:
        with capture_logs() as logs:
            answer = await post(client, acme[1].webhook_token, event("evt_1"))

    assert answer.status_code == 503
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["registry.secrets_undecryptable"]
    trace = await control.fetchval("SELECT last_refusal FROM control.ingest_activity WHERE tenant_id = $1", acme[0].tenant_id)
    assert "encrypted with another key" in trace
