"""Probes of a round: /health/ready, the age of the oldest pending event, and API reads of one tenant."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg
import msgspec

from billingwatch.errors import DatabaseUnavailable
from billingwatch.lab.load import HOST
from billingwatch.lab.stage import Stage
from billingwatch.postgres.connections import UNAVAILABLE
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "probe.sql")

READY_EVERY = 0.2  # seconds
READY_PATIENCE = 2.5  # seconds
AGE_EVERY = 0.5  # seconds
AGE_PATIENCE = 2.0  # seconds; without an answer there is no sample
READ_EVERY = 0.1  # seconds
READ_PATIENCE = 20.0  # seconds

REFUSED = 0  # stands for the status of a request whose connection was refused or broke
UNANSWERED = -1


class Poll(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `at` is CLOCK_MONOTONIC's time when it began."""

    at: float
    seconds: float
    status: int


class Age(msgspec.Struct, frozen=True, kw_only=True):
    """How long the oldest pending event had waited at a moment; 0 when none waits."""

    at: float
    seconds: float


class Probe:
    """Collects polls from `start` to `stop`."""

    def __init__(self, stage: Stage, port: int, *, read_key: str | None) -> None:
        self.polls: list[Poll] = []
        self.ages: list[Age] = []
        self.reads: list[Poll] = []
        self._stage = stage
        self._port = port
        self._read_key = read_key
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._poll()), asyncio.create_task(self._sample())]
        if self._read_key is not None:
            self._tasks.append(asyncio.create_task(self._read(self._read_key)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def await_ready(self, within: float) -> bool:
        """Wait for a 200 that was requested from now on; False when none comes in time."""
        began = time.monotonic()
        while time.monotonic() < began + within:
            if any(poll.status == 200 and poll.at >= began for poll in self.polls[-10:]):
                return True
            await asyncio.sleep(READY_EVERY / 4)
        return False

    async def _poll(self) -> None:
        await _repeat(READY_EVERY, lambda: self._get("/health/ready", {}, READY_PATIENCE), self.polls)

    async def _read(self, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        await _repeat(READ_EVERY, lambda: self._get("/events?limit=20", headers, READ_PATIENCE), self.reads)

    async def _get(self, path: str, headers: dict[str, str], patience: float) -> Poll:
        began = time.monotonic()
        try:
            async with asyncio.timeout(patience):
                status = await get(self._port, path, headers)
        except TimeoutError:
            status = UNANSWERED
        except (OSError, EOFError):
            status = REFUSED
        return Poll(at=began, seconds=time.monotonic() - began, status=status)

    async def _sample(self) -> None:
        while True:
            # The connection of a server that stopped is given up; the next one is tried AGE_EVERY later.
            with suppress(*UNAVAILABLE, asyncpg.PostgresError, DatabaseUnavailable):
                async with asyncio.timeout(AGE_PATIENCE):
                    control = await self._stage.connect()
                try:
                    while True:
                        async with asyncio.timeout(AGE_PATIENCE):
                            seconds = await control.fetchval(sql["oldest_age"])
                        self.ages.append(Age(at=time.monotonic(), seconds=seconds))
                        await asyncio.sleep(AGE_EVERY)
                finally:
                    control.terminate()
            await asyncio.sleep(AGE_EVERY)


async def get(port: int, path: str, headers: dict[str, str]) -> int:
    """Return the status of a GET over a connection of its own. OSError, EOFError when there is no answer."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        given = [f"{name}: {value}" for name, value in headers.items()]
        lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}", "Connection: close", *given, "", ""]
        writer.write("\r\n".join(lines).encode())
        head = await reader.readline()
        if not head:
            raise EOFError
        await reader.read()
        return int(head.split()[1])
    finally:
        writer.transport.abort()


async def _repeat(every: float, request: Callable[[], Awaitable[Poll]], polls: list[Poll]) -> None:
    """Send a request each `every` seconds, or when the last one ended, whichever is later."""
    while True:
        poll = await request()
        polls.append(poll)
        await asyncio.sleep(max(every - poll.seconds, 0))
