"""Attacks by senders who are not known, on a service of its own: signed events are acknowledged all the same, and memory stays bounded."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
import stripe

from billingwatch.simulate.payloads import charge_event_payloads

SECRET = "whsec_test_secret_of_the_attacked"
MIB = 1024 * 1024

ATTACK = """
import asyncio, resource, sys
host, port, connections, first, mebibytes = sys.argv[1:]
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
opened = 0

async def send():
    global opened
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            await asyncio.sleep(0.01)
            continue
        opened += 1
        if opened == int(connections):
            print("attacking", flush=True)
        try:
            writer.write(bytes.fromhex(first))
            for _ in range(16 * int(mebibytes)):
                writer.write(b"a" * 65536)
                await writer.drain()
            await reader.read()
        except OSError:
            await asyncio.sleep(0.01)
        finally:
            writer.transport.abort()

async def main():
    await asyncio.gather(*(send() for _ in range(int(connections))))

asyncio.run(main())
"""


def provision(installation: Any) -> str:
    made = installation.json("tenants", "create", "acme", "--secret", SECRET)
    return "/webhook/" + made["webhook_url"].rpartition("/")[2]


async def post(client: httpx.AsyncClient, path: str, body: bytes) -> httpx.Response:
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), SECRET, int(time.time()))
    return await client.post(path, content=body, headers={"stripe-signature": header})


async def post_alone(url: str, path: str, body: bytes) -> int:
    """Post over a connection of its own; return the status."""
    parts = urlsplit(url)
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), SECRET, int(time.time()))
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nStripe-Signature: {header}\r\nContent-Length: {len(body)}\r\n\r\n"
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(head.encode() + body)
            return int((await reader.readline()).split()[1])
        finally:
            writer.transport.abort()


def payloads(count: int) -> list[bytes]:
    return list(charge_event_payloads(count, seed=11, created=int(time.time()) - 3600, seconds=3000))


@contextmanager
def attack(url: str, connections: int, first: bytes, *, mebibytes: int = 0) -> Iterator[None]:
    """Keep `connections` open that each send `first` and then `mebibytes` of `a`; one that is cut is opened again.

    They are held by a process of their own, so that they do not slow down the sender whose answers the test waits for.
    """
    parts = urlsplit(url)
    arguments = [str(parts.hostname), str(parts.port), str(connections), first.hex(), str(mebibytes)]
    process = subprocess.Popen([sys.executable, "-P", "-c", ATTACK, *arguments], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"attacking\n"
        yield
    finally:
        process.kill()
        process.communicate()


async def test_endless_headers_hold_no_event_up(installation: Any) -> None:
    path = provision(installation)
    bodies = payloads(60)
    with (
        installation.serving("--no-worker") as served,
        attack(served.url, 2, b"GET / HTTP/1.1\r\nX-A: ", mebibytes=100),
    ):
        began = time.monotonic()
        statuses = [await post_alone(served.url, path, body) for body in bodies]
        took = time.monotonic() - began

    assert statuses == [200] * 60
    assert took < 15  # seconds; without a bound the first of them took as long


async def test_unsigned_flood_leaves_the_signed_events_alone(installation: Any) -> None:
    installation.environ["BILLINGWATCH_RATE_LIMIT"] = "100"
    path = provision(installation)
    bodies = payloads(200)

    async def flood(url: str, sent: list[int]) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            while True:
                sent.append((await client.post(path, content=b"{}")).status_code)

    with installation.serving("--no-worker") as served:
        forged: list[int] = []
        floods = [asyncio.create_task(flood(served.url, forged)) for _ in range(6)]
        async with httpx.AsyncClient(base_url=served.url, timeout=30) as client:
            statuses = [(await post(client, path, body)).status_code for body in bodies]
        async with asyncio.timeout(60):  # the flood goes on until it has used up its own limit
            while len(forged) <= 100:
                await asyncio.sleep(0.05)
        for task in floods:
            task.cancel()
        await asyncio.gather(*floods, return_exceptions=True)

    assert statuses == [200] * 200
    assert set(forged) <= {400, 429}
    assert len(forged) > 100


async def test_large_bodies_to_an_unknown_url_are_not_kept(installation: Any) -> None:
    path = provision(installation)
    with installation.serving("--no-worker") as served:
        process = psutil.Process(served.process.pid)
        async with httpx.AsyncClient(base_url=served.url, timeout=30) as client:
            for body in payloads(20):
                await post(client, path, body)
            before = process.memory_info().rss
            parts = urlsplit(served.url)
            head = b"POST /webhook/nope HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (MIB + 1)
            senders = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(400)]
            for _, writer in senders:
                writer.write(head + b"x" * MIB)
            first = [await asyncio.wait_for(reader.readline(), 30) for reader, _ in senders]
            during = process.memory_info().rss
            for _, writer in senders:
                writer.transport.abort()

    assert {line.split()[1] for line in first} == {b"404"}
    assert during - before < 100 * MIB


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
async def test_service_without_free_descriptors_serves_again_when_there_are(installation: Any) -> None:
    path = provision(installation)
    [first, second] = payloads(2)
    with installation.serving("--no-worker") as served:
        process = psutil.Process(served.process.pid)
        parts = urlsplit(served.url)
        _, hard = process.rlimit(resource.RLIMIT_NOFILE)
        before = await post_alone(served.url, path, first)
        process.rlimit(resource.RLIMIT_NOFILE, (process.num_fds() + 3, hard))
        senders = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(50)]
        # Those without a descriptor are closed by the event loop.
        async with asyncio.timeout(30):
            await asyncio.gather(*(reader.read() for reader, _ in senders), return_exceptions=True)
        busy = process.cpu_times().user
        process.rlimit(resource.RLIMIT_NOFILE, (hard, hard))
        after = await post_alone(served.url, path, second)
        for _, writer in senders:
            writer.transport.abort()

    assert (before, after) == (200, 200)
    assert busy < 30  # seconds of CPU: it did not spin


async def test_idle_connections_keep_no_sender_out(installation: Any) -> None:
    installation.environ["BILLINGWATCH_CONNECTIONS_LIMIT"] = "500"
    path = provision(installation)
    bodies = payloads(20)
    with (
        installation.serving("--no-worker") as served,
        attack(served.url, 1000, b""),
        attack(served.url, 1000, b"GET / HTTP/1.1\r\nX-A: a"),
    ):
        statuses = [await post_alone(served.url, path, body) for body in bodies]

    assert statuses == [200] * 20


async def test_rate_limit_holds_for_all_server_processes(installation: Any) -> None:
    installation.environ |= {"BILLINGWATCH_RATE_LIMIT": "1", "BILLINGWATCH_RATE_BURST_SECONDS": "60"}
    path = provision(installation)
    bodies = payloads(240)
    with installation.serving("--workers", "2", "--no-worker") as served:
        # A connection stays at its process: a new one for each event reaches both.
        began = time.monotonic()
        statuses = [await post_alone(served.url, path, body) for body in bodies]
        took = time.monotonic() - began

    accepted = statuses.count(200)
    assert 60 <= accepted <= 60 + took + 2
    assert statuses.count(429) == 240 - accepted
