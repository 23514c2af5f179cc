"""A 2xx is a promise: whatever is killed, every acknowledged event is there, once, and is processed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from typing import Any

import asyncpg
import httpx
import pytest
import stripe

from billingwatch.postgres.embedded import EmbeddedServer
from billingwatch.simulate.payloads import charge_event_payloads

pytestmark = pytest.mark.both_isolations

SECRET = "whsec_test_secret_for_crashes"
SENDERS = 8


async def send_until_killed(url: str, path: str, bodies: list[bytes], acked: set[str], stop: asyncio.Event) -> None:
    queue = list(enumerate(bodies))

    async def sender(client: httpx.AsyncClient) -> None:
        while queue and not stop.is_set():
            _, body = queue.pop()
            header = stripe.WebhookSignature.generate_signature_header(body.decode(), SECRET, int(time.time()))
            with contextlib.suppress(httpx.HTTPError):
                answer = await client.post(path, content=body, headers={"stripe-signature": header})
                assert answer.status_code in {200, 503}, answer.text
                if answer.status_code == 200:
                    acked.add(str(json.loads(body)["id"]))

    async with httpx.AsyncClient(base_url=url, timeout=10) as client:
        await asyncio.gather(*(sender(client) for _ in range(SENDERS)))


async def stored_ids(dsn: str, schema: str) -> tuple[list[str], list[str], int]:
    connection = await asyncpg.connect(dsn)
    events = await connection.fetch(f"SELECT event_id FROM {schema}.events")
    charges = await connection.fetch(f"SELECT event_id FROM {schema}.charges")
    pending = await connection.fetchval("SELECT count(*) FROM control.pending_events")
    await connection.close()
    return [row["event_id"] for row in events], [row["event_id"] for row in charges], pending


async def everything_processed(dsn: str, schema: str) -> tuple[list[str], list[str]]:
    async with asyncio.timeout(60):
        while (found := await stored_ids(dsn, schema))[2]:
            await asyncio.sleep(0.2)
    return found[0], found[1]


@pytest.mark.parametrize("victim", ["service", "postgres"])
async def test_after_a_kill_every_acknowledged_event_is_there_exactly_once(installation: Any, victim: str) -> None:
    made = installation.json("tenants", "create", "acme", "--secret", SECRET)
    path = "/webhook/" + made["webhook_url"].rpartition("/")[2]
    bodies = list(charge_event_payloads(4000, seed=5, created=int(time.time()) - 3600, seconds=3000))
    acked: set[str] = set()
    stop = asyncio.Event()

    with installation.serving() as served:
        load = asyncio.create_task(send_until_killed(served.url, path, bodies, acked, stop))
        while len(acked) < 300:
            assert not load.done()
            await asyncio.sleep(0.01)
        if victim == "service":
            served.process.kill()
            served.process.wait()
        else:
            os.kill(installation.postmaster, signal.SIGKILL)
            await asyncio.sleep(1)
        stop.set()
        await load
    with installation.serving(), EmbeddedServer.acquire(installation.directory) as server:
        events, charges = await everything_processed(server.dsn, made["schema"])

    assert len(acked) >= 300
    assert acked <= set(events)
    assert len(events) == len(set(events))
    assert sorted(charges) == sorted(events)


async def test_the_service_brings_a_killed_database_back_and_recovers_by_itself(installation: Any) -> None:
    made = installation.json("tenants", "create", "acme", "--secret", SECRET)
    path = "/webhook/" + made["webhook_url"].rpartition("/")[2]
    bodies = list(charge_event_payloads(3, seed=6, created=int(time.time()), seconds=1))

    def post(client: httpx.Client, body: bytes) -> httpx.Response:
        header = stripe.WebhookSignature.generate_signature_header(body.decode(), SECRET, int(time.time()))
        return client.post(path, content=body, headers={"stripe-signature": header})

    with installation.serving() as served, httpx.Client(base_url=served.url, timeout=30) as client:
        before = post(client, bodies[0])
        os.kill(installation.postmaster, signal.SIGKILL)
        # A backend that outlives the postmaster for a moment may still commit; then 200 is right, too.
        during = post(client, bodies[1])
        served.await_ready(seconds=60)
        after = post(client, bodies[2])
        with EmbeddedServer.acquire(installation.directory) as server:
            events, _ = await everything_processed(server.dsn, made["schema"])

    answers = [before, during, after]
    assert (before.status_code, after.status_code) == (200, 200)
    assert during.status_code == 200 or (during.status_code == 503 and int(during.headers["retry-after"]) > 0)
    assert sorted(events) == sorted(
        str(json.loads(body)["id"]) for body, answer in zip(bodies, answers, strict=True) if answer.status_code == 200
    )
