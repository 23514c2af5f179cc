"""Recording: the events that wait for a lane are written in one durable call.

Each request is answered after the commit of its event.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import asyncpg
import msgspec
import structlog

from billingwatch import metrics
from billingwatch.errors import BillingWatchError, DatabaseUnavailable, Overloaded
from billingwatch.ingest.locked import LockedTenants
from billingwatch.ingest.record import CONTENT_REFUSED, Delivery, record_bodies, record_events
from billingwatch.log_limit import LogLimit
from billingwatch.supervision import SupervisedTask
from billingwatch.tenancy.lanes import Lane, Lanes, control_plane, lane_number

log = structlog.get_logger()

LOCKED = "the tenant's tables are locked"
LATE = "the database did not commit it in time"
INTERRUPTED = "its batch was interrupted"
SHUTTING_DOWN = "the service is shutting down"
QUEUE_BYTES = 256 * 1024 * 1024  # of payloads that may wait for one lane
BATCH_BYTES = 16 * 1024 * 1024  # of payloads in one call, unless a single event is larger
BATCH_LIMIT = 128  # events per call; bounds how long one commit keeps the first of them waiting
COMMIT_SECONDS = 9.0  # that an event may wait for its commit; with the next check it is answered within 10 s
CHECK_SECONDS = 0.5  # between two checks for events that wait too long
REFUSED_SECONDS = 10.0  # after a refused batch, unless a later one commits, the lane is not ready
CLOSE_SECONDS = 8.0  # that closing waits for what is queued


class Recorded(msgspec.Struct, frozen=True):
    """One committed event: False in `is_new` when the tenant had it before."""

    is_new: bool


Waiting = tuple[Delivery, asyncio.Future[Recorded], float]
"""A delivery, the future of who waits for its commit, and since when (time of the event loop)."""

SERVER_FAULTS = (
    asyncpg.InsufficientResourcesError,  # the disk or the memory is full
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,  # a file cannot be read or written
)
"""Errors of a server that can record for no tenant."""


class LaneRecorder:
    """The queue of one ingest lane, the task that writes it, and the task that refuses what waits too long."""

    def __init__(self, lane: Lane, *, queue_limit: int, on_recorded: Callable[[Iterable[int]], None] = lambda _: None) -> None:
        self.lane = lane
        self.batches = 0
        self._queue_limit = queue_limit
        self._on_recorded = on_recorded
        self._waiting: deque[Waiting] = deque()
        self._waiting_bytes = 0
        self._writing: Sequence[Waiting] = ()
        self._stalled = False
        self._refused_at: float | None = None
        self._wake = asyncio.Event()
        self._closing = False
        self._locked = LockedTenants(lane)
        self._log = LogLimit()
        self._task = SupervisedTask(f"recorder {lane.name}", self._run)
        self._check = SupervisedTask(f"recorder deadline {lane.name}", self._refuse_late)
        self._task.start()
        self._check.start()

    @property
    def alive(self) -> bool:
        """True while every task of the lane runs."""
        return self._task.alive and self._check.alive and self._locked.alive

    @property
    def refusing(self) -> bool:
        """True for `REFUSED_SECONDS` after the database refused a batch, unless a later one was committed."""
        return self._refused_at is not None and _now() - self._refused_at < REFUSED_SECONDS

    @property
    def depth(self) -> int:
        """Events that wait."""
        return len(self._waiting)

    async def record(self, delivery: Delivery) -> Recorded:
        """Return once the event is committed; raise Overloaded when it cannot be."""
        if self._closing:
            raise Overloaded(reason=SHUTTING_DOWN)
        if len(self._waiting) >= self._queue_limit or self._waiting_bytes >= QUEUE_BYTES:
            raise Overloaded(reason="too many events are waiting")
        if delivery.tenant.tenant_id in self._locked:
            raise Overloaded(reason=LOCKED)
        if self._stalled:
            raise Overloaded(reason=LATE)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Recorded] = loop.create_future()
        self._waiting.append((delivery, future, loop.time()))
        self._waiting_bytes += len(delivery.payload)
        self._wake.set()
        return await future

    async def close(self) -> None:
        """Write what waits, then stop. What is not written after `CLOSE_SECONDS` is refused."""
        self._closing = True
        self._wake.set()
        await self._task.finish(within=CLOSE_SECONDS)
        await self._check.stop()
        _fail([*self._writing, *self._waiting], Overloaded(reason=SHUTTING_DOWN))
        await self._locked.close()
        await self.lane.close()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            if not self._waiting:
                if self._closing:
                    return
                self._wake.clear()
                continue
            self._writing = self._take()
            try:
                await self._write(self._writing)
            finally:
                if interrupted := _undone(self._writing):
                    _fail(interrupted, Overloaded(reason=INTERRUPTED))
                self._writing = ()
                self._stalled = False

    async def _refuse_late(self) -> None:
        """Refuse what has waited `COMMIT_SECONDS`, and while a write takes longer than that, what arrives."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            latest = _now() - COMMIT_SECONDS
            late = [one for one in self._writing if one[2] <= latest and not one[1].done()]
            self._stalled = bool(self._writing) and self._writing[-1][2] <= latest
            while self._waiting and self._waiting[0][2] <= latest:
                late.append(self._waiting.popleft())
                self._waiting_bytes -= len(late[-1][0].payload)
            if late:
                self._refuse(late, LATE)
                lane = self.lane.name
                log.warning("ingest.events_late", lane=lane, events=len(late), seconds=COMMIT_SECONDS)

    def _take(self) -> list[Waiting]:
        batch: list[Waiting] = []
        size = 0
        while self._waiting and len(batch) < BATCH_LIMIT and size < BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += len(batch[-1][0].payload)
        self._waiting_bytes -= size
        return batch

    async def _write(self, batch: Sequence[Waiting], *, as_bytes: bool = False) -> None:
        if not batch:
            return
        self.batches += 1
        try:
            await self._record(batch, as_bytes=as_bytes)
        except DatabaseUnavailable as error:
            self._refuse(batch, str(error))
        except asyncpg.LockNotAvailableError:
            await self._write_around_locks(batch)
        except asyncpg.PostgresError as error:
            if isinstance(error, SERVER_FAULTS):
                self._refused_at = _now()
            if len(batch) == 1:
                if isinstance(error, CONTENT_REFUSED) and not as_bytes:
                    await self._write(batch, as_bytes=True)
                    return
                _fail(batch, Overloaded(reason="the tenant's tables are not available"))
                delivery = batch[0][0]
                self._log.warning(
                    "ingest.event_refused",
                    cause=(delivery.tenant.tenant_id, type(error)),
                    tenant=delivery.tenant.name,
                    event_id=delivery.envelope.event_id,
                    error=str(error),
                )
                return
            # One event or one tenant makes the batch fail. Halving isolates it, and the others are stored.
            middle = len(batch) // 2
            await self._write(_undone(batch[:middle]))
            await self._write(_undone(batch[middle:]))
        except Exception as error:
            log.exception("ingest.batch_failed", events=len(batch))
            self._refuse(batch, type(error).__name__)

    async def _write_around_locks(self, batch: Sequence[Waiting]) -> None:
        try:
            await self._locked.find(delivery.tenant for delivery, _, _ in batch)
        except (DatabaseUnavailable, asyncpg.PostgresError) as error:
            self._refuse(batch, str(error))
            return
        _fail([one for one in batch if one[0].tenant.tenant_id in self._locked], Overloaded(reason=LOCKED))
        # `find` may miss the lock or come too late for it. The next attempt then succeeds, or the events' deadline ends it.
        await self._write(_undone(batch))

    def _refuse(self, batch: Sequence[Waiting], reason: str) -> None:
        """Refuse a batch that the database would have refused for every tenant."""
        self._refused_at = _now()
        _fail(batch, Overloaded(reason=reason))

    async def _record(self, batch: Sequence[Waiting], *, as_bytes: bool) -> None:
        write = record_bodies if as_bytes else record_events
        async with control_plane(self.lane) as connection:
            results = await write(connection, [delivery for delivery, _, _ in batch])
        self._refused_at = None
        metrics.batch_events.observe(len(batch))
        self.lane.touched(delivery.tenant.schema_name for delivery, _, _ in batch)
        for (_, future, _), is_new in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(Recorded(is_new))
        fresh = {delivery.tenant.tenant_id for (delivery, _, _), is_new in zip(batch, results, strict=True) if is_new}
        if fresh:
            self._on_recorded(fresh)


class Records(Protocol):
    """Records verified deliveries."""

    @property
    def lanes(self) -> Sequence[LaneRecorder]: ...

    async def record(self, delivery: Delivery) -> Recorded: ...

    async def close(self) -> None: ...


class Recorder:
    """Records events, each tenant's on its own lane and so in the order in which they came."""

    def __init__(self, lanes: Lanes, *, queue_limit: int, on_recorded: Callable[[Iterable[int]], None] = lambda _: None) -> None:
        self.lanes = [LaneRecorder(lane, queue_limit=queue_limit, on_recorded=on_recorded) for lane in lanes.lanes]

    async def record(self, delivery: Delivery) -> Recorded:
        return await self.lanes[lane_number(delivery.tenant.tenant_id, len(self.lanes))].record(delivery)

    async def close(self) -> None:
        await asyncio.gather(*(lane.close() for lane in self.lanes))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _undone(batch: Sequence[Waiting]) -> list[Waiting]:
    """Return those that still wait: neither answered nor given up by their sender."""
    return [one for one in batch if not one[1].done()]


def _fail(batch: Sequence[Waiting], error: BillingWatchError) -> None:
    for _, future, _ in batch:
        if not future.done():
            future.set_exception(error)
