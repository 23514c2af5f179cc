"""Facts that requests note in memory and a background task writes every few seconds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import asyncpg

from billingwatch.errors import DatabaseUnavailable
from billingwatch.log_limit import LogLimit
from billingwatch.supervision import SupervisedTask
from billingwatch.tenancy.lanes import answer_within

FLUSH_SECONDS = 5.0  # between two writes
WRITE_SECONDS = 2.0  # that one write waits for the database


class PeriodicWrite:
    """Calls `flush` every `seconds`, and once more when it is closed.

    `flush` keeps what it could not write. A failed write is logged as `failed`, at most once a minute.
    """

    def __init__(self, name: str, flush: Callable[[], Awaitable[None]], *, failed: str, seconds: float = FLUSH_SECONDS) -> None:
        self._flush = flush
        self._failed = failed
        self._seconds = seconds
        self._closing = asyncio.Event()
        self._log = LogLimit()
        self._task = SupervisedTask(name, self._run)

    def start(self) -> None:
        self._task.start()

    async def close(self) -> None:
        """Stop, and write once more. Returns within a few seconds also while the database does not answer."""
        self._closing.set()
        await self._task.finish(within=WRITE_SECONDS)
        await self._try_flush()

    async def _run(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._seconds)
            if not self._closing.is_set():
                await self._try_flush()

    async def _try_flush(self) -> None:
        try:
            async with answer_within(WRITE_SECONDS):
                await self._flush()
        except (DatabaseUnavailable, asyncpg.PostgresError) as error:
            self._log.warning(self._failed, cause="not written", error=str(error))
