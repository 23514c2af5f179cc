"""The last use of API keys, to the minute: noted in memory by requests, written in the background."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime

import asyncpg
import structlog

from billingwatch.errors import DatabaseUnavailable
from billingwatch.postgres.statements import load_statements
from billingwatch.supervision import SupervisedTask
from billingwatch.tenancy.lanes import Lane, answer_within, control_plane

log = structlog.get_logger()
sql = load_statements(__file__, "key_use.sql")

FLUSH_SECONDS = 5.0  # between two writes
LAST_FLUSH_SECONDS = 2.0  # that closing waits for the database
KEYS_LIMIT = 100_000  # remembered; more are forgotten, and their minute is written once more


class KeyUse:
    """Notes which keys were used. A key's row is written at most once a minute by each process."""

    def __init__(self, lane: Lane, clock: Callable[[], datetime]) -> None:
        self._lane = lane
        self._clock = clock
        self._unwritten: dict[int, datetime] = {}
        self._written: dict[int, datetime] = {}
        self._closing = asyncio.Event()
        self._task = SupervisedTask("key use", self._run)

    def start(self) -> None:
        self._task.start()

    async def close(self) -> None:
        """Write what is noted once more, if the database answers."""
        self._closing.set()
        await self._task.stop()
        await self._try_flush()

    def add(self, key_id: int) -> None:
        """Note that the key is used now."""
        minute = self._clock().replace(second=0, microsecond=0)
        if self._written.get(key_id) != minute:
            self._unwritten[key_id] = minute

    async def flush(self) -> None:
        """Write the noted keys in one statement; after an error they stay noted. Raises DatabaseUnavailable, asyncpg.PostgresError."""
        if not self._unwritten:
            return
        writing, self._unwritten = self._unwritten, {}
        try:
            async with answer_within(LAST_FLUSH_SECONDS), control_plane(self._lane) as connection:
                await connection.execute(sql["put_last_use"], list(writing), list(writing.values()))
        except BaseException:
            self._unwritten = {**writing, **self._unwritten}
            raise
        if len(self._written) > KEYS_LIMIT:
            self._written.clear()
        self._written.update(writing)

    async def _run(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), FLUSH_SECONDS)
            await self._try_flush()

    async def _try_flush(self) -> None:
        try:
            await self.flush()
        except (DatabaseUnavailable, asyncpg.PostgresError) as error:
            log.warning("key_use.not_written", keys=len(self._unwritten), error=str(error))
