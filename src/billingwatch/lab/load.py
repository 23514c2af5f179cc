"""Load: signed events over a fixed number of connections.

Closed loop: each connection posts as soon as it has its answer, which finds the capacity. Open loop: events are due at Poisson times whatever
the server does, and latency counts from when an event was due, so a server that stalls cannot hide what it held up.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from itertools import islice
from random import Random

import msgspec

from billingwatch.lab.bodies import Post, Target, posts
from billingwatch.lab.choice import Choice, choose
from billingwatch.lab.wire import Connection

HOST = "127.0.0.1"
OK = 200
LOST = 0  # stands for the status of a request whose connection broke, or that was never answered
PATIENCE = 30.0  # seconds that answers may take when no more events are due
RECONNECT_AFTER = 0.1  # seconds
# Deliveries made before the clock starts, so that making them takes no time from the server; what is needed beyond is made on the fly.
READY_RATE = 6000  # events/s of a closed loop
READY_MAX = 60_000  # events; 250 MB, signed for less than the 300 s that a signature is good for


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the load process. `rate` is in events/s, None for a closed loop; a sweep ends after one event per tenant."""

    port: int
    seconds: float
    seed: int
    choice: Choice
    connections: int
    rate: float | None = None
    first: int = 0
    last: int | None = None
    # The slice of the targets that take part; None: to the end.


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a phase. Five lists have an item for each acknowledged event; times are CLOCK_MONOTONIC's, the same in all processes."""

    began: float
    ended: float  # the last acknowledgement
    cpu_seconds: float
    tenants: list[int]
    event_ids: list[str]
    due: list[float]
    acked_at: list[float]
    unacked: list[tuple[int, str]]  # posted and answered otherwise, or not at all
    unposted: int  # due, and still waiting for a connection when patience ended
    statuses: dict[int, int]

    @property
    def acked(self) -> int:
        return len(self.event_ids)

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def rate(self) -> float:
        """Acknowledged events/s."""
        return self.acked / self.seconds

    @property
    def latencies(self) -> list[float]:
        return [acked_at - due for acked_at, due in zip(self.acked_at, self.due, strict=True)]

    def latencies_between(self, began: float, ended: float) -> list[float]:
        """Those of the events that were due then."""
        return [latency for latency, due in zip(self.latencies, self.due, strict=True) if began <= due <= ended]


def arrivals(rate: float, seconds: float, *, seed: int) -> Iterator[float]:
    """When events are due, in seconds from the start: a Poisson process, as many independent senders make one."""
    rng = Random(f"{seed}/arrivals")
    at = rng.expovariate(rate)
    while at < seconds:
        yield at
        at += rng.expovariate(rate)


class Load:
    """Runs one phase."""

    def __init__(self, targets: Sequence[Target], phase: Phase) -> None:
        taking_part = targets[phase.first : phase.last]
        self._numbers = range(len(targets))[phase.first : phase.last]
        self._phase = phase
        self._posts = posts(taking_part, choose(phase.choice, len(taking_part), seed=phase.seed), seed=phase.seed)
        self._ready = deque(islice(self._posts, min(int(phase.seconds * (phase.rate or READY_RATE)), READY_MAX)))
        self._idle: deque[Connection] = deque()
        self._posted: dict[Connection, tuple[Post, float]] = {}  # with when it was due
        self._due: deque[float] = deque()  # when events that wait for a connection were due
        self._acked: list[tuple[int, str, float, float]] = []  # tenant, event, when it was due, and acknowledged
        self._unacked: list[tuple[int, str]] = []
        self._statuses: dict[int, int] = {}
        self._began = self._end = 0.0
        self._last = False  # no event will be due after those that are now
        self._done = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> Outcome:
        """Post and wait for the answers. ConnectionError when nobody listens."""
        for _ in range(self._phase.connections):
            self._idle.append(await self._connection())
        cpu_seconds = time.process_time()
        self._began = time.monotonic()
        self._end = self._began + self._phase.seconds
        if self._phase.rate is None:
            self._due.extend([self._began] * len(self._idle))
            self._post_due()
            asyncio.get_running_loop().call_later(self._phase.seconds, self._stop)
        else:
            self._spawn(self._arrive(self._phase.rate))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._done.wait(), self._phase.seconds + PATIENCE)
        cpu_seconds = time.process_time() - cpu_seconds
        return self._outcome(cpu_seconds)

    async def _arrive(self, rate: float) -> None:
        for offset in arrivals(rate, self._phase.seconds, seed=self._phase.seed):
            due = self._began + offset
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            self._due.append(due)
            self._post_due()
        self._stop()

    def _stop(self) -> None:
        self._last = True
        self._finish()

    def _finish(self) -> None:
        if self._last and not self._posted and not self._due:
            self._done.set()

    def _post_due(self) -> None:
        while self._due and self._idle:
            post = self._ready.popleft() if self._ready else next(self._posts, None)
            if post is None:
                self._due.clear()
                self._stop()
                return
            connection = self._idle.popleft()
            self._posted[connection] = (post, self._due.popleft())
            connection.send(post.request)

    def _answered(self, connection: Connection, status: int) -> None:
        now = time.monotonic()
        self._settle(*self._posted.pop(connection), status, now)
        self._idle.append(connection)
        if self._phase.rate is None and not self._last:
            self._due.append(now)
        self._post_due()
        self._finish()

    def _lost(self, connection: Connection) -> None:
        if connection in self._posted:
            self._settle(*self._posted.pop(connection), LOST, time.monotonic())
        elif connection in self._idle:
            self._idle.remove(connection)
        if not self._done.is_set():
            self._spawn(self._replace())
            self._finish()

    def _settle(self, post: Post, due: float, status: int, now: float) -> None:
        self._statuses[status] = self._statuses.get(status, 0) + 1
        if status == OK:
            self._acked.append((self._numbers[post.tenant], post.event_id, due, now))
        else:
            self._unacked.append((self._numbers[post.tenant], post.event_id))

    async def _replace(self) -> None:
        while not self._done.is_set():
            await asyncio.sleep(RECONNECT_AFTER)
            with contextlib.suppress(OSError):
                self._idle.append(await self._connection())
                if self._phase.rate is None and not self._last:
                    self._due.append(time.monotonic())
                self._post_due()
                return

    async def _connection(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._answered, self._lost), HOST, self._phase.port
        )
        return connection

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _outcome(self, cpu_seconds: float) -> Outcome:
        self._done.set()
        for task in self._tasks:
            task.cancel()
        for connection, (post, due) in list(self._posted.items()):
            self._settle(post, due, LOST, time.monotonic())
            connection.close()
        for connection in self._idle:
            connection.close()
        return Outcome(
            began=self._began,
            ended=max((acked_at for *_, acked_at in self._acked), default=time.monotonic()),
            cpu_seconds=cpu_seconds,
            tenants=[tenant for tenant, *_ in self._acked],
            event_ids=[event_id for _, event_id, *_ in self._acked],
            due=[due for *_, due, _ in self._acked],
            acked_at=[acked_at for *_, acked_at in self._acked],
            unacked=self._unacked,
            unposted=len(self._due),
            statuses=self._statuses,
        )
