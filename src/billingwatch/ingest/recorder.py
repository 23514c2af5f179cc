"""Recording: what waits for a lane is written in one durable call, and each waiting request is answered after its commit."""

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
from billingwatch.tenancy.lanes import Lane, Lanes, control_plane, lane_number

log = structlog.get_logger()

LOCKED = "the tenant's tables are locked"
QUEUE_BYTES = 256 * 1024 * 1024  # of payloads that may wait for one lane
BATCH_BYTES = 16 * 1024 * 1024  # of payloads in one call, unless a single event is larger
BATCH_LIMIT = 128  # events per call; bounds how long one commit keeps the first of them waiting


class Recorded(msgspec.Struct, frozen=True):
    """One committed event: False in `is_new` when the tenant had it before."""

    is_new: bool


class LaneRecorder:
    """The queue in front of one ingest lane, and the task that empties it."""

    def __init__(self, lane: Lane, *, queue_limit: int, on_recorded: Callable[[Iterable[int]], None] = lambda _: None) -> None:
        self.lane = lane
        self.batches = 0
        self._queue_limit = queue_limit
        self._on_recorded = on_recorded
        self._waiting: deque[tuple[Delivery, asyncio.Future[Recorded]]] = deque()
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._locked = LockedTenants(lane)
        self._task = asyncio.create_task(self._run(), name=f"recorder {lane.name}")

    @property
    def depth(self) -> int:
        """Events that wait."""
        return len(self._waiting)

    async def record(self, delivery: Delivery) -> Recorded:
        """Return once the event is committed; raise Overloaded when it cannot be."""
        if self._closing:
            raise Overloaded(reason="the service is shutting down")
        if len(self._waiting) >= self._queue_limit or self._waiting_bytes >= QUEUE_BYTES:
            raise Overloaded(reason="too many events are waiting")
        if delivery.tenant.tenant_id in self._locked:
            raise Overloaded(reason=LOCKED)
        future: asyncio.Future[Recorded] = asyncio.get_running_loop().create_future()
        self._waiting.append((delivery, future))
        self._waiting_bytes += len(delivery.payload)
        self._wake.set()
        return await future

    async def close(self) -> None:
        """Write what waits, then stop."""
        self._closing = True
        self._wake.set()
        await self._task
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
            await self._write(self._take())

    def _take(self) -> list[tuple[Delivery, asyncio.Future[Recorded]]]:
        batch: list[tuple[Delivery, asyncio.Future[Recorded]]] = []
        size = 0
        while self._waiting and len(batch) < BATCH_LIMIT and size < BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += len(batch[-1][0].payload)
        self._waiting_bytes -= size
        return batch

    async def _write(self, batch: Sequence[tuple[Delivery, asyncio.Future[Recorded]]], *, as_bytes: bool = False) -> None:
        self.batches += 1
        try:
            await self._record(batch, as_bytes=as_bytes)
        except DatabaseUnavailable as error:
            _fail(batch, Overloaded(reason=str(error)))
        except asyncpg.LockNotAvailableError:
            await self._write_around_locks(batch)
        except asyncpg.PostgresError as error:
            if len(batch) == 1:
                if isinstance(error, CONTENT_REFUSED) and not as_bytes:
                    await self._write(batch, as_bytes=True)
                    return
                _fail(batch, Overloaded(reason="the tenant's tables are not available"))
                log.warning(
                    "ingest.event_refused", tenant=batch[0][0].tenant.name, event_id=batch[0][0].envelope.event_id, error=str(error)
                )
                return
            # One event or one tenant spoils the batch: halve it until the culprit stands alone and the others are stored.
            middle = len(batch) // 2
            await self._write(batch[:middle])
            await self._write(batch[middle:])
        except Exception as error:
            log.exception("ingest.batch_failed", events=len(batch))
            _fail(batch, Overloaded(reason=type(error).__name__))

    async def _write_around_locks(self, batch: Sequence[tuple[Delivery, asyncio.Future[Recorded]]]) -> None:
        try:
            await self._locked.find(delivery.tenant for delivery, _ in batch)
        except DatabaseUnavailable as error:
            _fail(batch, Overloaded(reason=str(error)))
            return
        refused = [one for one in batch if one[0].tenant.tenant_id in self._locked]
        _fail(refused, Overloaded(reason=LOCKED))
        rest = [one for one in batch if one[0].tenant.tenant_id not in self._locked]
        # The lock may be gone by now, and then nobody is refused.
        if rest:
            await self._write(rest)

    async def _record(self, batch: Sequence[tuple[Delivery, asyncio.Future[Recorded]]], *, as_bytes: bool) -> None:
        write = record_bodies if as_bytes else record_events
        async with control_plane(self.lane) as connection:
            results = await write(connection, [delivery for delivery, _ in batch])
        metrics.batch_events.observe(len(batch))
        self.lane.touched(delivery.tenant.schema_name for delivery, _ in batch)
        for (_, future), is_new in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(Recorded(is_new))
        fresh = {delivery.tenant.tenant_id for (delivery, _), is_new in zip(batch, results, strict=True) if is_new}
        if fresh:
            self._on_recorded(fresh)


class Records(Protocol):
    """What stands between a verified delivery and its commit."""

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


def _fail(batch: Sequence[tuple[Delivery, asyncio.Future[Recorded]]], error: BillingWatchError) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
