"""Commands as processes: several server processes, workers of their own, graceful ends, commands beside a service and without one."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from typing import Any

import asyncpg
import httpx
import pytest
import stripe

from billingwatch.postgres.embedded import EmbeddedServer
from billingwatch.simulate.payloads import charge_event_payloads

SECRET = "whsec_test_secret_for_processes"


def provision(installation: Any, name: str = "acme") -> tuple[dict[str, Any], str]:
    made = installation.json("tenants", "create", name, "--secret", SECRET)
    return made, "/webhook/" + made["webhook_url"].rpartition("/")[2]


async def post(client: httpx.AsyncClient, path: str, body: bytes) -> httpx.Response:
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), SECRET, int(time.time()))
    return await client.post(path, content=body, headers={"stripe-signature": header})


def start(installation: Any, command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(installation.command(command), env=installation.environ)


async def count(dsn: str, query: str) -> int:
    connection = await asyncpg.connect(dsn)
    found: int = await connection.fetchval(query)
    await connection.close()
    return found


async def reaches(dsn: str, query: str, wanted: int, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if await count(dsn, query) == wanted:
            return True
        await asyncio.sleep(0.1)
    return False


@pytest.fixture
def bodies() -> list[bytes]:
    return list(charge_event_payloads(200, seed=9, created=int(time.time()) - 3600, seconds=3000))


@pytest.mark.both_isolations
async def test_several_server_processes_share_a_port_and_a_worker_processes_for_them(installation: Any, bodies: list[bytes]) -> None:
    made, path = provision(installation)

    with installation.serving("--workers", "2") as served, EmbeddedServer.acquire(installation.directory) as server:
        async with httpx.AsyncClient(base_url=served.url, timeout=30) as client:
            answers = [await post(client, path, body) for body in bodies]
            metrics = (await client.get("/metrics")).text
        processed = await reaches(server.dsn, f"SELECT count(*) FROM {made['schema']}.charges", len(bodies))

    assert {answer.status_code for answer in answers} == {200}
    assert f'billingwatch_events_total{{outcome="recorded"}} {float(len(bodies))}' in metrics
    assert processed


@pytest.mark.both_isolations
async def test_workers_beside_a_service_without_one_share_the_lanes_and_survive_each_other(installation: Any, bodies: list[bytes]) -> None:
    made, path = provision(installation)
    charges = f"SELECT count(*) FROM {made['schema']}.charges"

    with installation.serving("--no-worker") as served, EmbeddedServer.acquire(installation.directory) as server:
        async with httpx.AsyncClient(base_url=served.url, timeout=30) as client:
            for body in bodies[:100]:
                await post(client, path, body)
            untouched = await count(server.dsn, charges)
            workers = [start(installation, "worker") for _ in range(2)]
            first = await reaches(server.dsn, charges, 100)
            workers[0].kill()
            for body in bodies[100:]:
                await post(client, path, body)
            second = await reaches(server.dsn, charges, 200)
            workers[1].send_signal(signal.SIGTERM)
            codes = [worker.wait(30) for worker in workers]

    assert untouched == 0
    assert first
    assert second
    assert codes == [-signal.SIGKILL, 0]


@pytest.mark.both_isolations
@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
async def test_a_service_told_to_stop_answers_what_it_has_accepted(installation: Any, bodies: list[bytes], told: signal.Signals) -> None:
    made, path = provision(installation)
    acked: set[str] = set()

    async def send(client: httpx.AsyncClient, body: bytes) -> None:
        try:
            if (await post(client, path, body)).status_code == 200:
                acked.add(str(json.loads(body)["id"]))
        except httpx.HTTPError:
            return

    with EmbeddedServer.acquire(installation.directory) as server:
        with installation.serving() as served:
            async with httpx.AsyncClient(base_url=served.url, timeout=30) as client:
                sending = [asyncio.create_task(send(client, body)) for body in bodies]
                while not acked:
                    await asyncio.sleep(0.005)
                served.process.send_signal(told)
                await asyncio.gather(*sending)
            code = await asyncio.to_thread(served.process.wait, 30)
        stored = await count(server.dsn, f"SELECT count(*) FROM {made['schema']}.events")

    assert code == 0
    assert acked
    assert stored >= len(acked)


def test_a_busy_port_is_one_clear_line(installation: Any) -> None:
    with installation.serving() as served:
        taken = installation.run("serve", "--port", served.url.rpartition(":")[2], check=False)

    assert taken.returncode == 2
    assert taken.stderr.decode().splitlines()[0].startswith("error: cannot listen on 127.0.0.1:")
    assert b"Traceback" not in taken.stderr
