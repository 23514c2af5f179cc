"""A stream of signed events at a constant rate. Unacknowledged events are sent again, as Stripe does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from random import Random
from typing import Literal

import msgspec

from billingwatch.lab.bodies import Addressed, Target, bodies, event_id_of
from billingwatch.lab.load import HOST, OK
from billingwatch.lab.wire import Connection

Cut = Literal["body", "answer"]
"""Where a sender resets its own connection: in the middle of the body, or before the answer."""

BROKEN = 0  # stands for the status of a delivery whose connection was refused or broke
UNANSWERED = -1  # nothing came within PATIENCE
CUT = -2  # the sender reset the connection
PATIENCE = 40.0  # seconds; longer than any answer should take, so that the gap is measured and not cut off
FRESH = 2.0  # seconds that a connection may have been idle; the service closes it after 5
TWIN_EVERY = 20  # each 20th event pays again what the event before it of the same tenant paid: one anomaly
CUT_EVERY = 3  # while the fault is on, each third delivery is cut
RETRIES_AT_ONCE = 16
RETRY_PAUSE = 0.5  # seconds


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery. Times are CLOCK_MONOTONIC's."""

    sent_at: float
    answered_at: float
    status: int

    @property
    def seconds(self) -> float:
        return self.answered_at - self.sent_at


class StreamEvent(msgspec.Struct, kw_only=True):
    """An event and its deliveries. `twin` is the id of the event whose payment it repeats."""

    tenant: int
    event_id: str
    body: bytes
    twin: str | None = None
    attempts: list[Attempt] = []
    under_way: float | None = None

    @property
    def acked(self) -> bool:
        return any(attempt.status == OK for attempt in self.attempts)


class Stream:
    """Sends from `start` to `stop`; `redeliver` then sends what is left."""

    def __init__(self, targets: Sequence[Target], port: int, rate: float, *, seed: int) -> None:
        self.events: list[StreamEvent] = []
        self.cut: Cut | None = None
        self._addressed = [Addressed(target) for target in targets]
        self._port = port
        self._rate = rate
        self._made = self._make(len(targets), seed)
        self._idle: deque[tuple[Connection, float]] = deque()
        self._waiting: dict[Connection, asyncio.Future[int]] = {}
        self._emitter: asyncio.Task[None] | None = None
        self._posts: set[asyncio.Task[None]] = set()

    @property
    def attempts(self) -> list[Attempt]:
        """All deliveries that ended, in the order in which they were sent."""
        made = (attempt for event in self.events for attempt in event.attempts)
        return sorted(made, key=lambda attempt: attempt.sent_at)

    def start(self) -> None:
        self._emitter = asyncio.create_task(self._emit(), name="stream")

    async def stop(self) -> None:
        """Send no new event, and wait for the deliveries that are under way."""
        if self._emitter is not None:
            self._emitter.cancel()
            await asyncio.gather(self._emitter, return_exceptions=True)
        await asyncio.gather(*self._posts)

    async def redeliver(self, within: float) -> None:
        """Send each event that is not acknowledged, and repeat that until all are or time is up."""
        deadline = time.monotonic() + within
        free = asyncio.Semaphore(RETRIES_AT_ONCE)

        async def send(event: StreamEvent) -> None:
            async with free:
                if time.monotonic() < deadline:
                    await self._deliver(event, None)

        while (rest := [event for event in self.events if not event.acked]) and time.monotonic() < deadline:
            await asyncio.gather(*(send(event) for event in rest))
            await asyncio.sleep(RETRY_PAUSE)

    async def close(self) -> None:
        """Drop whatever is under way, and every connection."""
        tasks = [*self._posts, *([self._emitter] if self._emitter else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in [*self._waiting, *(each for each, _ in self._idle)]:
            connection.close()

    async def _emit(self) -> None:
        began = time.monotonic()
        for number, event in enumerate(self._made):
            await asyncio.sleep(max(began + number / self._rate - time.monotonic(), 0))
            self.events.append(event)
            cut = self.cut if number % CUT_EVERY == 0 else None
            post = asyncio.create_task(self._deliver(event, cut))
            self._posts.add(post)
            post.add_done_callback(self._posts.discard)

    def _make(self, tenants: int, seed: int) -> Iterator[StreamEvent]:
        rng = Random(f"{seed}/stream")
        last: StreamEvent | None = None
        for number, body in enumerate(bodies(seed), 1):
            if last is not None and number % TWIN_EVERY == 0:
                body, event_id = twin_of(last.body, last.event_id, event_id_of(body))  # noqa: PLW2901
                yield StreamEvent(tenant=last.tenant, event_id=event_id, body=body, twin=last.event_id)
                last = None
                continue
            last = StreamEvent(tenant=rng.randrange(tenants), event_id=event_id_of(body), body=body)
            yield last

    async def _deliver(self, event: StreamEvent, cut: Cut | None) -> None:
        request = self._addressed[event.tenant].request(event.body, int(time.time()))
        sent_at = event.under_way = time.monotonic()
        status = await (self._post(request) if cut is None else self._post_and_reset(request, cut))
        event.under_way = None
        event.attempts.append(Attempt(sent_at=sent_at, answered_at=time.monotonic(), status=status))

    async def _post(self, request: bytes) -> int:
        try:
            async with asyncio.timeout(PATIENCE):
                connection = self._fresh() or await self._open()
                answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
                self._waiting[connection] = answer
                connection.send(request)
                try:
                    return await answer
                except asyncio.CancelledError:
                    # Only a connection that still waits is ours: after an answer another delivery may use it.
                    if self._waiting.get(connection) is answer:
                        del self._waiting[connection]
                        connection.close()
                    raise
        except TimeoutError:
            return UNANSWERED
        except OSError:
            return BROKEN

    async def _post_and_reset(self, request: bytes, cut: Cut) -> int:
        try:
            async with asyncio.timeout(PATIENCE):
                _, writer = await asyncio.open_connection(HOST, self._port)
                writer.write(request[: len(request) // 2] if cut == "body" else request)
                await writer.drain()
                await asyncio.sleep(0)
        except (OSError, TimeoutError):
            return BROKEN
        # With a linger time of 0 the kernel sends RST instead of FIN.
        with contextlib.suppress(OSError):
            own = writer.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return CUT

    def _fresh(self) -> Connection | None:
        while self._idle:
            connection, since = self._idle.pop()
            if time.monotonic() - since < FRESH:
                return connection
            connection.close()
        return None

    async def _open(self) -> Connection:
        make = partial(Connection, self._answered, self._lost)
        _, connection = await asyncio.get_running_loop().create_connection(make, HOST, self._port)
        return connection

    def _answered(self, connection: Connection, status: int) -> None:
        answer = self._waiting.pop(connection, None)
        if answer is not None and not answer.done():
            answer.set_result(status)
        self._idle.append((connection, time.monotonic()))

    def _lost(self, connection: Connection) -> None:
        answer = self._waiting.pop(connection, None)
        if answer is not None and not answer.done():
            answer.set_result(BROKEN)
        self._idle = deque(each for each in self._idle if each[0] is not connection)


def twin_of(body: bytes, event_id: str, fresh_id: str) -> tuple[bytes, str]:
    """Return the body of a second, equal payment by the same customer, with its event id.

    Event, charge and payment intent get new ids; customer, card, amount and order stay.
    """
    old, new = event_id.removeprefix("evt_1").encode(), fresh_id.removeprefix("evt_1").encode()
    for prefix in (b"evt_1", b"ch_3", b"pi_3"):
        body = body.replace(prefix + old, prefix + new)
    return body, fresh_id
