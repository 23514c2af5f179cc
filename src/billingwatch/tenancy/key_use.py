"""The last use of API keys, to the minute: noted in memory by requests, written in the background."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.lanes import Lane, control_plane
from billingwatch.tenancy.periodic_write import PeriodicWrite

sql = load_statements(__file__, "key_use.sql")

KEYS_LIMIT = 100_000  # remembered; more are forgotten, and their minute is written once more


class KeyUse:
    """Notes which keys were used. A key's row is written at most once a minute by each process."""

    def __init__(self, lane: Lane, clock: Callable[[], datetime]) -> None:
        self._lane = lane
        self._clock = clock
        self._unwritten: dict[int, datetime] = {}
        self._written: dict[int, datetime] = {}
        self._writes = PeriodicWrite("key use", self.flush, failed="key_use.not_written")

    def start(self) -> None:
        self._writes.start()

    async def close(self) -> None:
        """Write what is noted once more, if the database answers."""
        await self._writes.close()

    def add(self, key_id: int) -> None:
        """Note that the key is used now."""
        minute = self._clock().replace(second=0, microsecond=0)
        if self._written.get(key_id) != minute:
            self._unwritten[key_id] = minute

    async def flush(self) -> None:
        """Write the noted keys in one statement. After an error they stay noted.

        Raises DatabaseUnavailable, asyncpg.PostgresError.
        """
        if not self._unwritten:
            return
        writing, self._unwritten = self._unwritten, {}
        try:
            async with control_plane(self._lane) as connection:
                await connection.execute(sql["put_last_use"], list(writing), list(writing.values()))
        except BaseException:
            self._unwritten = {**writing, **self._unwritten}
            raise
        if len(self._written) > KEYS_LIMIT:
            self._written.clear()
        self._written.update(writing)
