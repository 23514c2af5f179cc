"""Changes of tenants: written with each change, polled by every process that caches tenants.

The feed does not use LISTEN/NOTIFY. Every role may notify any channel, and one role can fill the queue that
all databases share.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import asyncpg
import structlog

from billingwatch.errors import DatabaseUnavailable
from billingwatch.postgres.connections import UNAVAILABLE, ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.supervision import SupervisedTask
from billingwatch.tenancy.lanes import Lane, control_plane

log = structlog.get_logger()
sql = load_statements(__file__, "changes.sql")

POLL_SECONDS = 0.25
KEEP_FOR = timedelta(hours=6)  # age at which changes are deleted
MISSED_AFTER = timedelta(hours=1)  # between two polls; after a longer gap, unread changes may be deleted
CLEAN_SECONDS = 600.0  # between two deletions of old changes

Forget = Callable[..., None]
"""Drops cached answers about the given tenant ids; without one: about all tenants."""


async def announce_change(control: ControlConnection, tenant_id: int | None = None) -> None:
    """Record that a tenant, or every tenant, changes in this transaction.

    Processes drop their cached answers once it is committed.
    """
    await control.execute(sql["announce_change"], tenant_id)


class ChangeFeed:
    """Reads each committed change once, in any order of commits, and calls `forget` at most once per poll."""

    def __init__(self, lane: Lane, forget: Forget) -> None:
        self.task = SupervisedTask("tenant changes", self._run)
        self._lane = lane
        self._forget = forget
        self._horizon: int | None = None  # null until the first poll and after a gap
        self._polled_at: datetime | None = None
        self._handled: dict[int, int] = {}  # change → its transaction
        self._cleaned = float("-inf")

    def start(self) -> None:
        self.task.start()

    async def close(self) -> None:
        await self.task.stop()
        await self._lane.close()

    async def poll(self) -> None:
        """Read the changes that became visible since the last poll. Raises DatabaseUnavailable."""
        async with control_plane(self._lane) as connection:
            rows = await connection.fetch(sql["find_changes"], self._horizon, list(self._handled))
            await self._clean(connection)
        horizon, polled_at = rows[0]["horizon"], rows[0]["polled_at"]
        found = [row for row in rows if row["change_id"] is not None]
        if self._missed(horizon, polled_at):
            self._forget()
        elif found:
            tenant_ids = {row["tenant_id"] for row in found}
            self._forget(*(() if None in tenant_ids else tenant_ids))
        self._handled.update((row["change_id"], row["transaction_id"]) for row in found)
        # The next poll starts at this horizon, so it does not find older changes again.
        self._handled = {change: xid for change, xid in self._handled.items() if xid >= horizon}
        self._horizon, self._polled_at = horizon, polled_at

    def _missed(self, horizon: int, polled_at: datetime) -> bool:
        """Return whether changes may be lost: first poll, long gap, or a server that was restored from a backup."""
        if self._horizon is None or self._polled_at is None:
            return True
        return horizon < self._horizon or abs(polled_at - self._polled_at) > MISSED_AFTER

    async def _clean(self, connection: ControlConnection) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._cleaned >= CLEAN_SECONDS:
            self._cleaned = now
            await connection.execute(sql["delete_old_changes"], KEEP_FOR)

    async def _run(self) -> None:
        available = True
        while True:
            try:
                await self.poll()
                available = True
            except (DatabaseUnavailable, *UNAVAILABLE, asyncpg.PostgresError) as error:
                if available:  # one line per outage
                    log.warning("registry.changes_unread", error=str(error))
                available = False
            await asyncio.sleep(POLL_SECONDS)
