"""Lanes: connections that tenants are bound to, so that one backend, not all of them, caches a tenant's metadata.

A backend caches what it learns of every relation it touches and gives none of it back; a lane's connection is therefore
replaced once it has served a bounded number of distinct tenants. In row isolation all of them share the same relations, and it never is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import asyncpg
import structlog

from billingwatch.errors import DatabaseUnavailable
from billingwatch.postgres.connections import (
    LEAVE_SECONDS,
    UNAVAILABLE,
    ControlConnection,
    TenantConnection,
    discard,
    open_connection,
    recover,
)
from billingwatch.settings import Settings
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.tenants import Tenant, usable

log = structlog.get_logger()

RECONNECT_AFTER = 0.5  # seconds between attempts while the database is away
CLOSE_SECONDS = 5.0  # that closing a lane waits for its holder
LOCK_SECONDS = {"work": 0.5}  # that a statement waits for a lock: a visit to a locked tenant delays the others on its lane
ANSWER_SECONDS = 7.5  # that a request waits for the database; with LEAVE_SECONDS it is answered within 10 s


class Lane:
    """One connection, used by one caller at a time; reopened when it is lost, replaced when it has served enough tenants."""

    def __init__(self, dsn: str, name: str, *, tenants_limit: int = 5000, statement_timeout: int = 30, lock_timeout: float = 0) -> None:
        self.name = name
        self.recycled = 0
        self.generation = 0  # of the connection; session-level locks belong to one generation
        self._dsn = dsn
        self._tenants_limit = tenants_limit
        self._statement_timeout = statement_timeout
        self._lock_timeout = lock_timeout
        self._connection: asyncpg.Connection | None = None
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._schemas: set[str] = set()
        self._failed_at = float("-inf")
        self._closed = False

    @property
    def statement_timeout(self) -> int:
        """Seconds that a statement on this lane may take."""
        return self._statement_timeout

    @property
    def schemas_touched(self) -> int:
        """Distinct schemas of tenants that the present connection has served."""
        return len(self._schemas)

    @property
    def connected(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    @property
    def waiting(self) -> int:
        """Callers that wait for the lane or hold it."""
        return self._waiting

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[asyncpg.Connection]:
        """Hold the lane's connection; DatabaseUnavailable when it cannot be had or is lost meanwhile."""
        self._waiting += 1
        try:
            async with self._lock:
                connection = await self._ready()
                try:
                    yield connection
                except asyncio.CancelledError:
                    await recover(connection)
                    raise
                except UNAVAILABLE as error:
                    connection.terminate()
                    raise DatabaseUnavailable(reason=str(error) or type(error).__name__) from error
        finally:
            self._waiting -= 1

    @asynccontextmanager
    async def scope(self, tenant: Tenant, *, readonly: bool = False) -> AsyncIterator[TenantConnection]:
        """One transaction among the tenant's rows on this lane. TenantOutdated when the code of this release cannot use the schema."""
        usable(tenant)
        async with self.hold() as connection, tenant_scope(connection, tenant, readonly=readonly) as scoped:
            self.touched([tenant.schema_name])
            yield scoped

    def touched(self, schema_names: Iterable[str]) -> None:
        """Count schemas whose relations the connection has used."""
        self._schemas.update(schema_names)

    async def close(self) -> None:
        """Close the connection once its holder is done, and terminate it after `CLOSE_SECONDS`."""
        self._closed = True
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._lock.acquire()
        except TimeoutError:
            log.warning("tenancy.lane_terminated", lane=self.name)
            if self._connection is not None:
                self._connection.terminate()
            return
        try:
            await self._drop()
        finally:
            self._lock.release()

    async def _ready(self) -> asyncpg.Connection:
        if self._closed:
            raise DatabaseUnavailable(reason="the service is shutting down")
        if len(self._schemas) > self._tenants_limit:
            await self._drop()
            self.recycled += 1
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._open()
        elif self._connection.is_in_transaction():
            # Somebody was cancelled while a transaction began; the next caller's work must not end up in it, uncommitted.
            await self._drop()
            self._connection = await self._open()
        return self._connection

    async def _open(self) -> asyncpg.Connection:
        now = asyncio.get_running_loop().time()
        if now - self._failed_at < RECONNECT_AFTER:  # Each caller that queues for a dead lane would wait for a time-out of its own.
            raise DatabaseUnavailable(reason="not reachable a moment ago")
        self._schemas.clear()
        self.generation += 1
        try:
            return await open_connection(
                self._dsn,
                f"billingwatch {self.name}",
                statement_timeout=self._statement_timeout,
                lock_timeout=self._lock_timeout,
            )
        except DatabaseUnavailable:
            self._failed_at = asyncio.get_running_loop().time()
            raise

    async def _drop(self) -> None:
        self._schemas.clear()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await discard(connection)


class Lanes:
    """A fixed number of lanes; a tenant always runs on the same one."""

    def __init__(self, make: Callable[[int], Lane], count: int) -> None:
        self.lanes = [make(number) for number in range(count)]

    def of(self, tenant_id: int) -> Lane:
        return self.lanes[lane_number(tenant_id, len(self.lanes))]

    async def close(self) -> None:
        await asyncio.gather(*(lane.close() for lane in self.lanes))


def make_lanes(settings: Settings, dsn: str, kind: str, count: int) -> Lanes:
    """`count` lanes of one kind (ingest, work, read) as the settings bound them."""
    return Lanes(
        lambda number: Lane(
            dsn,
            f"{kind} {number}",
            tenants_limit=settings.lane_tenants,
            statement_timeout=settings.statement_timeout,
            lock_timeout=LOCK_SECONDS.get(kind, 0),
        ),
        count,
    )


def lane_number(tenant_id: int, count: int) -> int:
    """Which of `count` lanes a tenant belongs to."""
    return tenant_id % count


@asynccontextmanager
async def answer_within(seconds: float = ANSWER_SECONDS) -> AsyncIterator[None]:
    """Limit what the block waits for the database; when time is up, raise DatabaseUnavailable.

    A block that holds a lane needs up to `LEAVE_SECONDS` more to cancel its statement and roll back.
    """
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DatabaseUnavailable(reason=f"it did not answer within {seconds + LEAVE_SECONDS:g} s") from error


@asynccontextmanager
async def control_plane(lane: Lane) -> AsyncIterator[ControlConnection]:
    """A connection for the control plane, outside every tenant scope."""
    async with lane.hold() as connection:
        yield ControlConnection(connection)
