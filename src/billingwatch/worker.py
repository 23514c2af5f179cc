"""Background work: a processor that owns lanes, visits their tenants round-robin, and moves lanes when processes come and go."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial

import asyncpg
import structlog

from billingwatch import metrics
from billingwatch.errors import BillingWatchError, DatabaseUnavailable, FleetSettingMismatch, TenantOutdated
from billingwatch.judgement import FURTHEST
from billingwatch.logs import count_dropped_lines
from billingwatch.postgres.connections import UNAVAILABLE
from billingwatch.postgres.statements import load_statements
from billingwatch.settings import Settings
from billingwatch.supervision import SupervisedTask
from billingwatch.tenancy.analyst_guard import make_guard
from billingwatch.tenancy.fleet_settings import WORK_LANES, agree, check_fleet_settings, key_sample
from billingwatch.tenancy.lanes import Lane, Lanes, answer_within, control_plane, lane_number, make_lanes
from billingwatch.tenancy.migrate import ensure_control_plane, tell_fleet_state
from billingwatch.tenancy.processors import REPORT_SECONDS, register_processor, report_processor, unregister_processor
from billingwatch.tenancy.registry import Registry
from billingwatch.tenancy.sealing import open_seal
from billingwatch.visit import sql as visit_sql
from billingwatch.visit import visit

log = structlog.get_logger()
sql = load_statements(__file__, "worker.sql")

POLL_SECONDS = 0.25  # how soon events are seen that other processes recorded
BALANCE_SECONDS = 2.0  # how soon a dead process's lanes are taken over
CLOSE_SECONDS = 8.0  # that closing waits for the visits under way
LEAVE_SECONDS = 2.0  # that closing waits for the database to delete this process's row
FROZEN_SECONDS = 30.0  # without a statement, after which the other processors take the lanes of a processor
LOCKED_SECONDS = 5.0  # before a tenant whose tables are locked is visited again
BACKOFF_SECONDS = (1, 5, 30, 120, 300)  # before a tenant whose visit failed is visited again


class WorkLane:
    """One lane of the fleet: the tenants on it that need a visit, and whether this process owns it."""

    def __init__(self, number: int, lane: Lane) -> None:
        self.number = number
        self.lane = lane
        self.owned_generation: int | None = None
        self.attending = 0  # pid of the control session under which the lane was taken
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
        self._locked: set[int] = set()  # tenants whose last visit found a table locked
        self._workers = [SupervisedTask(f"work lane {lane.number}", partial(self._work, lane)) for lane in self._lanes]
        self._poller = SupervisedTask("processor poll", self._poll)
        self._stopping = False
        self._present_generation: int | None = None
        self._attending = 0
        self._processor_id: int | None = None

    @property
    def lanes(self) -> list[Lane]:
        return [lane.lane for lane in self._lanes]

    @property
    def alive(self) -> bool:
        """True while every task of the processor runs."""
        return self._poller.alive and all(worker.alive for worker in self._workers)

    def start(self) -> None:
        for task in (*self._workers, self._poller):
            task.start()

    async def close(self) -> None:
        """Finish the visits under way, then stop; what is left stays pending in Postgres."""
        self._stopping = True
        for worker in self._workers:
            worker.expect_end()
        for lane in self._lanes:
            lane.wake.set()
        await self._poller.stop()
        await asyncio.gather(*(worker.finish(within=CLOSE_SECONDS) for worker in self._workers))
        await self._unregister()
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
            if tenant.status != "active":
                return  # Its events wait in Postgres; polls find them once it is resumed.
            done = await visit(lane.lane, tenant, as_of=self._clock())
        except DatabaseUnavailable as error:
            log.warning("worker.database_unavailable", lane=lane.number, error=str(error))
            await asyncio.sleep(POLL_SECONDS)
            return
        except TenantOutdated:
            return  # Costs nothing to ask again, so that it goes on as soon as the tenant is migrated; the service said at its start who is behind.
        except asyncpg.LockNotAvailableError as error:
            self._skip_locked(tenant_id, error)
            return
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
        if tenant_id in self._locked:
            self._locked.discard(tenant_id)
            log.info("worker.tenant_unlocked", tenant_id=tenant_id)
        metrics.visit.observe(loop.time() - began)
        if done.more:
            lane.call(tenant_id)

    async def _forget(self, tenant_id: int) -> None:
        async with control_plane(self._control) as connection:
            await connection.execute(visit_sql["forget_tenant"], tenant_id)

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        balanced = reported = float("-inf")
        while True:
            try:
                if loop.time() - reported >= REPORT_SECONDS and all(worker.alive for worker in self._workers):
                    await self._report()
                    reported = loop.time()
                if loop.time() - balanced >= BALANCE_SECONDS or not any(lane.owned for lane in self._lanes):
                    await self._balance()
                    balanced = loop.time()
                await self._look_for_work()
            except FleetSettingMismatch as error:
                log.warning("worker.refused", error=str(error), hint=error.hint)
                await asyncio.sleep(REPORT_SECONDS)
            except (DatabaseUnavailable, *UNAVAILABLE, asyncpg.PostgresError) as error:
                log.warning("worker.poll_failed", error=str(error))
            await asyncio.sleep(POLL_SECONDS)

    async def _report(self) -> None:
        """Report in control.processors that this process processes events, from its first poll on.

        Raises FleetSettingMismatch when the number of lanes was changed before this process had registered.
        """
        count_dropped_lines()
        async with control_plane(self._control) as connection:
            if self._processor_id is not None and await report_processor(connection, self._processor_id):
                return
            async with connection.transaction():
                await agree(connection, WORK_LANES, str(len(self._lanes)))
                self._processor_id = await register_processor(connection)

    async def _unregister(self) -> None:
        if self._processor_id is None:
            return
        try:
            async with answer_within(LEAVE_SECONDS), control_plane(self._control) as connection:
                await unregister_processor(connection, self._processor_id)
        except (DatabaseUnavailable, asyncpg.PostgresError) as error:
            log.warning("worker.not_unregistered", error=str(error))

    async def _look_for_work(self) -> None:
        idle = {lane.number for lane in self._lanes if lane.owned and not lane.ready}
        if not idle:
            return
        async with control_plane(self._control) as connection:
            as_of = self._clock()
            rows = await connection.fetch(visit_sql["tenants_with_work"], as_of, as_of + FURTHEST)
        for row in rows:
            if (number := lane_number(row["tenant_id"], len(self._lanes))) in idle:
                self._lanes[number].call(row["tenant_id"])

    async def _balance(self) -> None:
        """Own a fair share of the lanes: give up what is above it, take free ones while below."""
        async with control_plane(self._control) as connection:
            if self._present_generation != self._control.generation:
                [row] = await connection.fetch(sql["attend"])
                self._present_generation, self._attending = self._control.generation, row["pid"]
            for row in await connection.fetch(sql["end_frozen"], FROZEN_SECONDS):
                log.warning("worker.frozen_processor_ended", seconds=FROZEN_SECONDS, lanes=len(row["lanes"]))
            processes: int = await connection.fetchval(sql["attendance"])
        share = math.ceil(len(self._lanes) / max(processes, 1))
        owned = [lane for lane in self._lanes if lane.owned]
        for lane in owned[share:]:
            async with lane.lane.hold() as connection:
                await connection.execute(sql["disown_lane"], len(self._lanes), lane.number, lane.attending)
            lane.owned_generation = None
            log.info("worker.lane_given_up", lane=lane.number)
        room = share - len(owned)
        for lane in self._lanes:
            if room > 0 and not lane.owned and await self._own(lane):
                room -= 1

    async def _own(self, lane: WorkLane) -> bool:
        async with lane.lane.hold() as connection:
            if not await connection.fetchval(sql["own_lane"], len(self._lanes), lane.number, self._attending):
                return False
            lane.attending = self._attending
            lane.owned_generation = lane.lane.generation
        log.debug("worker.lane_owned", lane=lane.number)
        return True

    def _back_off(self, tenant_id: int) -> None:
        failures = self._failures.get(tenant_id, (0, 0.0))[0]
        seconds = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
        self._failures[tenant_id] = (failures + 1, asyncio.get_running_loop().time() + seconds)

    def _skip_locked(self, tenant_id: int, error: asyncpg.LockNotAvailableError) -> None:
        """Visit the tenant again in `LOCKED_SECONDS`; log the first of several attempts."""
        metrics.visit_failures.inc()
        if tenant_id not in self._locked:
            self._locked.add(tenant_id)
            log.warning("worker.tenant_locked", tenant_id=tenant_id, error=str(error), retry_in_seconds=LOCKED_SECONDS)
        self._failures[tenant_id] = (0, asyncio.get_running_loop().time() + LOCKED_SECONDS)

    def _backing_off(self, tenant_id: int) -> bool:
        return tenant_id in self._failures and self._failures[tenant_id][1] > asyncio.get_running_loop().time()


@asynccontextmanager
async def processing(settings: Settings, dsn: str, clock: Callable[[], datetime]) -> AsyncIterator[Processor]:
    """Run a processor with a registry and lanes of its own until the block ends.

    Raises DatabaseUnavailable, SchemaOutdated, SecretKeyUnusable, FleetSettingMismatch.
    """
    control = Lane(dsn, "control", statement_timeout=settings.statement_timeout)
    try:
        async with control_plane(control) as connection:
            await ensure_control_plane(connection, isolation=settings.isolation, partitions=settings.partitions)
            seal = open_seal(settings, may_create=await key_sample(connection) is None)
            await check_fleet_settings(connection, settings, seal)
            await tell_fleet_state(connection)
        registry = Registry(control, seal, dsn)
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
