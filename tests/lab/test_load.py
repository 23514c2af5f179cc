from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from billingwatch.lab import load as load_module
from billingwatch.lab.bodies import Target
from billingwatch.lab.load import LOST, OK, Load, Outcome, Phase, arrivals

TARGETS = [Target(token=f"token{number}", secret=f"whsec_of_tenant_{number}") for number in range(8)]
ACKNOWLEDGED = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"status":"ok"}'
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"

Answer = Callable[[], Awaitable[bytes | None]]


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[int]:
    """A server that reads requests and gives `answer`'s bytes, or hangs up on None."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(re.search(rb"Content-Length: (\d+)", head)[1]))
                said = await answer()
                if said is None:
                    return
                for part in (said[:30], said[30:]):  # in pieces, as a network may deliver it
                    writer.write(part)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def at_once() -> bytes:
    return ACKNOWLEDGED


async def run(port: int, **options: object) -> Outcome:
    phase = {"seconds": 0.4, "seed": 3, "choice": "uniform", "connections": 4} | options
    return await Load(TARGETS, Phase(port=port, **phase)).run()


async def test_a_closed_loop_posts_until_its_time_is_over():
    async with answering(at_once) as port:
        outcome = await run(port)

    assert outcome.acked == len(set(outcome.event_ids)) > 20
    assert outcome.statuses == {OK: outcome.acked}
    assert 0.3 < outcome.seconds < 1.5
    assert set(outcome.tenants) == set(range(8))
    assert outcome.unacked == []


async def test_a_closed_loop_has_as_many_requests_on_their_way_as_connections():
    inside = most = 0

    async def slowly() -> bytes:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.02)
        inside -= 1
        return ACKNOWLEDGED

    async with answering(slowly) as port:
        await run(port, connections=3)

    assert most == 3


async def test_a_sweep_posts_one_event_for_each_tenant_and_ends():
    async with answering(at_once) as port:
        outcome = await run(port, choice="sweep", seconds=60)

    assert sorted(outcome.tenants) == list(range(8))


async def test_a_slice_of_the_targets_keeps_their_numbers():
    async with answering(at_once) as port:
        last = await run(port, first=-1, seconds=0.1)
        others = await run(port, choice="sweep", last=-1)

    assert set(last.tenants) == {7}
    assert sorted(others.tenants) == list(range(7))


async def test_an_open_loop_posts_what_is_due_however_slow_the_answers_are():
    async def slowly() -> bytes:
        await asyncio.sleep(0.1)
        return ACKNOWLEDGED

    due = list(arrivals(50, 0.5, seed=3))
    async with answering(slowly) as port:
        outcome = await run(port, rate=50, seconds=0.5, connections=2)

    # Two connections manage 20 events a second; the others waited, and their waiting counts.
    assert outcome.acked == len(due)
    assert [at - outcome.began for at in sorted(outcome.due)] == pytest.approx(due)
    assert max(outcome.latencies) > len(due) / 20 - 0.5 - 0.1


async def test_a_stall_delays_every_event_that_was_due_in_it():
    stalled_at = time.monotonic() + 0.2

    async def answer() -> bytes:
        while stalled_at < time.monotonic() < stalled_at + 0.5:
            await asyncio.sleep(0.01)
        return ACKNOWLEDGED

    async with answering(answer) as port:
        outcome = await run(port, rate=200, seconds=1)

    # Four connections are stuck at once; a client that waited for them would report four slow events and not know of the others.
    held_up = [latency for latency in outcome.latencies if latency > 0.1]
    assert len(held_up) > 200 * 0.5 * 0.5
    assert max(held_up) > 0.4


async def test_events_that_are_answered_otherwise_are_not_acknowledged():
    answers = iter([ACKNOWLEDGED, UNAVAILABLE] * 4)

    async def answer() -> bytes:
        return next(answers)

    async with answering(answer) as port:
        outcome = await run(port, choice="sweep", connections=1)

    assert outcome.statuses == {OK: 4, 503: 4}
    assert sorted([*outcome.tenants, *(tenant for tenant, _ in outcome.unacked)]) == list(range(8))


async def test_a_lost_connection_is_replaced_and_its_event_is_in_doubt():
    count = 0

    async def answer() -> bytes | None:
        nonlocal count
        count += 1
        return None if count == 3 else ACKNOWLEDGED

    async with answering(answer) as port:
        outcome = await run(port, connections=1)

    assert outcome.statuses[LOST] == 1
    assert len(outcome.unacked) == 1
    assert outcome.acked > 2


async def test_patience_ends_with_a_server_that_never_answers(monkeypatch):
    monkeypatch.setattr(load_module, "PATIENCE", 0.2)

    async def never() -> bytes:
        await asyncio.sleep(60)
        return ACKNOWLEDGED

    async with answering(never) as port:
        outcome = await run(port, rate=50, seconds=0.2, connections=1)

    assert outcome.acked == 0
    assert outcome.statuses == {LOST: 1}
    assert outcome.unposted == len(list(arrivals(50, 0.2, seed=3))) - 1


def test_arrivals_are_a_poisson_process_of_the_rate():
    due = list(arrivals(1000, 10, seed=1))

    gaps = [later - earlier for earlier, later in pairwise(due)]
    assert due == list(arrivals(1000, 10, seed=1))
    assert len(due) == pytest.approx(10_000, rel=0.05)
    assert sum(gap > 0.001 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)
