"""Connections of one server process: bounded in number, and closed at their deadlines by a periodic sweep."""

from __future__ import annotations

import asyncio
from typing import Protocol

from billingwatch import metrics
from billingwatch.log_limit import LogLimit
from billingwatch.server.limits import Limits

READ_SIZE = 16 * 1024  # bytes taken from a socket at once; all connections share the buffer
STATE_KEY = "connections"  # of the server's lifespan state, through which each connection finds this object


class Connection(Protocol):
    """One accepted connection."""

    deadline: float  # by the event loop's clock; infinite while the service prepares the answer

    def expire(self, now: float) -> None:
        """Close, refuse or extend, because the deadline has passed."""

    def evict(self) -> None:
        """Close at once to make room for a newer connection or answer."""


class Connections:
    """The connections of one process.

    A new connection is accepted while an older one has no complete request: the oldest of those is closed for it.
    Answers that their readers do not take are bounded in bytes: the oldest of those is closed for a newer one.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.buffer = memoryview(bytearray(READ_SIZE))
        self._open: set[Connection] = set()
        # Both are ordered: the connection that came first is closed first.
        self._waiting: dict[Connection, None] = {}
        self._uploading: dict[Connection, None] = {}
        self._unsent: dict[Connection, int] = {}  # bytes of answers that wait for their readers
        self._unsent_total = 0
        self._log = LogLimit()

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: Connection) -> bool:
        """Add a new connection, and close an older one at the limit. Return False if each has a complete request."""
        while len(self._open) >= self.limits.connections:
            oldest = next(iter(self._waiting), None) or next(iter(self._uploading), None)
            if oldest is None:
                return False
            self.remove(oldest)
            oldest.evict()
        self._open.add(connection)
        self._waiting[connection] = None
        return True

    def remove(self, connection: Connection) -> None:
        self._open.discard(connection)
        self.sent(connection)
        self._waiting.pop(connection, None)
        self._uploading.pop(connection, None)

    def waits(self, connection: Connection) -> None:
        """Note that the connection has no request in progress: idle, within its headers, or refused."""
        self._uploading.pop(connection, None)
        if connection in self._open:
            self._waiting[connection] = None

    def uploads(self, connection: Connection) -> None:
        """Note that the headers of a request are complete and its body is not."""
        self._waiting.pop(connection, None)
        if connection in self._open:
            self._uploading.setdefault(connection)

    def works(self, connection: Connection) -> None:
        """Note that a request is complete and has no answer yet."""
        self._waiting.pop(connection, None)
        self._uploading.pop(connection, None)

    def unsent(self, connection: Connection, size: int) -> None:
        """Note that `size` bytes of an answer wait for their reader, and close the oldest such connections at the limit."""
        self.sent(connection)
        self._unsent[connection] = size
        self._unsent_total += size
        while self._unsent_total > self.limits.unsent_bytes and len(self._unsent) > 1:
            oldest = next(iter(self._unsent))
            self.remove(oldest)
            oldest.evict()

    def sent(self, connection: Connection) -> None:
        """Note that no answer waits for its reader."""
        self._unsent_total -= self._unsent.pop(connection, 0)

    def closed(self, reason: str, client: str | None) -> None:
        """Count a connection that the server closed, and log the first of its reason in a minute."""
        metrics.connections_closed.labels(reason).inc()
        self._log.warning("server.connection_closed", cause=reason, reason=reason, client=client)

    def sweep(self, now: float) -> None:
        """Expire every connection whose deadline has passed."""
        for connection in [one for one in self._open if one.deadline <= now]:
            connection.expire(now)
        metrics.connections.set(len(self._open))

    async def run(self) -> None:
        """Sweep until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.limits.sweep_seconds)
            self.sweep(loop.time())
