"""Background work: a processor that owns lanes, visits their tenants round-robin, and moves lanes when processes come and go."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg
import structlog

from billingwatch import metrics
from billingwatch.errors import BillingWatchError, DatabaseUnavailable, TenantOutdated
from billingwatch.postgres.connections import UNAVAILABLE
from billingwatch.postgres.statements import load_statements
from billingwatch.settings import Settings
from billingwatch.tenancy.analyst_guard import make_guard
from billingwatch.tenancy.lanes import Lane, Lanes, control_plane, lane_number, make_lanes
from billingwatch.tenancy.migrate import ensure_control_plane, tell_fleet_state
from billingwatch.tenancy.registry import Registry
from billingwatch.tenancy.sealing import open_seal
from billingwatch.visit import sql as visit_sql
from billingwatch.visit import visit

log = structlog.get_logger()
sql = load_statements(__file__, "worker.sql")

POLL_SECONDS = 0.25  # how soon events are seen that other processes recorded
BALANCE_SECONDS = 2.0  # how soon a dead process's lanes are taken over
BACKOFF_SECONDS = (1, 5, 30, 120, 300)  # before a tenant whose visit failed is visited again


class WorkLane:
    """One lane of the fleet: the tenants on it that need a visit, and whether this process owns it."""

    def __init__(self, number: int, lane: Lane) -> None:
        self.number = number
        self.lane = lane
        self.owned_generation: int | None = None
        self.ready: OrderedDict[int, None] = OrderedDict()
        self.wake = asyncio.Event()

    @property
    def owned(self) -> bool:
        # The ownership lock lives and dies with the connection that took it.
        return self.owned_generation is not None and self.owned_generation == self.lane.generation and self.lane.connected

    def call(self, tenant_id: int) -> None:
        """Line the tenant up for a visit, once."""
        self.ready[tenant_id] = None
        self.wake.set()


class Processor:
    """Visits tenants that have work. Any number of processes may run one; each lane is worked by one of them."""

    def __init__(self, control: Lane, lanes: Lanes, registry: Registry, clock: Callable[[], datetime]) -> None:
        self._control = control
        self._registry = registry
        self._clock = clock
        self._lanes = [WorkLane(number, lane) for number, lane in enumerate(lanes.lanes)]
        self._failures: dict[int, tuple[int, float]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._present_generation: int | None = None

    @property
    def lanes(self) -> list[Lane]:
        return [lane.lane for lane in self._lanes]

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._work(lane), name=f"work lane {lane.number}") for lane in self._lanes]
        self._tasks.append(asyncio.create_task(self._poll(), name="processor poll"))

    async def close(self) -> None:
        """Finish the visits under way, then stop; what is left stays pending in Postgres."""
        self._stopping = True
        for lane in self._lanes:
            lane.wake.set()
        self._tasks[-1].cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(lane.lane.close() for lane in self._lanes))

    def call(self, tenant_ids: Iterable[int]) -> None:
        """Say that tenants have new events, so that they need not wait for the next poll."""
        for tenant_id in tenant_ids:
            self._lanes[lane_number(tenant_id, len(self._lanes))].call(tenant_id)

    async def _work(self, lane: WorkLane) -> None:
        while not self._stopping:
            await lane.wake.wait()
            if self._stopping:
                return
            if not lane.ready or not lane.owned:
                lane.ready.clear()
                lane.wake.clear()
                continue
            tenant_id, _ = lane.ready.popitem(last=False)
            if not self._backing_off(tenant_id):
                await self._visit(lane, tenant_id)

    async def _visit(self, lane: WorkLane, tenant_id: int) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            tenant = await self._registry.by_tenant_id(tenant_id)
            if tenant is None:
                await self._forget(tenant_id)
                return
            done = await visit(lane.lane, tenant, as_of=self._clock())
        except DatabaseUnavailable as error:
            log.warning("worker.database_unavailable", lane=lane.number, error=str(error))
            await asyncio.sleep(POLL_SECONDS)
            return
        except TenantOutdated:
            return  # Costs nothing to ask again, so that it goes on as soon as the tenant is migrated; the service said at its start who is behind.
        except (asyncpg.PostgresError, BillingWatchError) as error:
            self._back_off(tenant_id)
            metrics.visit_failures.inc()
            log.warning("worker.visit_failed", tenant_id=tenant_id, error=f"{type(error).__name__}: {error}")
            return
        except Exception:
            self._back_off(tenant_id)
            metrics.visit_failures.inc()
            log.exception("worker.visit_failed", tenant_id=tenant_id)
            return
        self._failures.pop(tenant_id, None)
        metrics.visit.observe(loop.time() - began)
        if done.more:
            lane.call(tenant_id)

    async def _forget(self, tenant_id: int) -> None:
        async with control_plane(self._control) as connection:
            await connection.execute(visit_sql["forget_tenant"], tenant_id)

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        balanced = float("-inf")
        while True:
            try:
                if loop.time() - balanced >= BALANCE_SECONDS or not any(lane.owned for lane in self._lanes):
                    await self._balance()
                    balanced = loop.time()
                await self._look_for_work()
            except (DatabaseUnavailable, *UNAVAILABLE, asyncpg.PostgresError) as error:
                log.warning("worker.poll_failed", error=str(error))
            await asyncio.sleep(POLL_SECONDS)

    async def _look_for_work(self) -> None:
        idle = {lane.number for lane in self._lanes if lane.owned and not lane.ready}
        if not idle:
            return
        async with control_plane(self._control) as connection:
            rows = await connection.fetch(visit_sql["tenants_with_work"], self._clock())
        for row in rows:
            if (number := lane_number(row["tenant_id"], len(self._lanes))) in idle:
                self._lanes[number].call(row["tenant_id"])

    async def _balance(self) -> None:
        """Own a fair share of the lanes: give up what is above it, take free ones while below."""
        async with control_plane(self._control) as connection:
            if self._present_generation != self._control.generation:
                await connection.execute(sql["attend"])
                self._present_generation = self._control.generation
            processes: int = await connection.fetchval(sql["attendance"])
        share = math.ceil(len(self._lanes) / max(processes, 1))
        owned = [lane for lane in self._lanes if lane.owned]
        for lane in owned[share:]:
            async with lane.lane.hold() as connection:
                await connection.execute(sql["disown_lane"], len(self._lanes), lane.number)
            lane.owned_generation = None
            log.info("worker.lane_given_up", lane=lane.number)
        room = share - len(owned)
        for lane in self._lanes:
            if room > 0 and not lane.owned and await self._own(lane):
                room -= 1

    async def _own(self, lane: WorkLane) -> bool:
        async with lane.lane.hold() as connection:
            if not await connection.fetchval(sql["own_lane"], len(self._lanes), lane.number):
                return False
            lane.owned_generation = lane.lane.generation
        log.debug("worker.lane_owned", lane=lane.number)
        return True

    def _back_off(self, tenant_id: int) -> None:
        failures = self._failures.get(tenant_id, (0, 0.0))[0]
        seconds = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
        self._failures[tenant_id] = (failures + 1, asyncio.get_running_loop().time() + seconds)

    def _backing_off(self, tenant_id: int) -> bool:
        return tenant_id in self._failures and self._failures[tenant_id][1] > asyncio.get_running_loop().time()


@asynccontextmanager
async def processing(settings: Settings, dsn: str, clock: Callable[[], datetime]) -> AsyncIterator[Processor]:
    """A processor with a registry and lanes of its own, running until the block ends. DatabaseUnavailable, SchemaOutdated."""
    control = Lane(dsn, "control", statement_timeout=settings.statement_timeout)
    try:
        async with control_plane(control) as connection:
            await ensure_control_plane(connection, isolation=settings.isolation, partitions=settings.partitions)
            await tell_fleet_state(connection)
        registry = Registry(control, open_seal(settings), dsn)
        processor = Processor(control, make_lanes(settings, dsn, "work", settings.work_lanes), registry, clock)
        guard = make_guard(settings, dsn)
        registry.start()
        processor.start()
        guard.start()
        try:
            yield processor
        finally:
            await guard.close()
            await processor.close()
            await registry.close()
    finally:
        await control.close()
