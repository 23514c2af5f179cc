"""The service: every long-lived part of one process, made in one place, started and closed in order."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from datetime import datetime

import asyncpg
import structlog

from billingwatch import metrics
from billingwatch.clock import utc_now
from billingwatch.errors import DatabaseUnavailable
from billingwatch.exposition import Exposition
from billingwatch.gate import Gate
from billingwatch.ingest.activity import Activity
from billingwatch.ingest.rate_limit import Buckets, RateLimit
from billingwatch.ingest.receive import Receiver
from billingwatch.ingest.recorder import Recorder, Records
from billingwatch.log_limit import LogLimit
from billingwatch.logs import count_dropped_lines
from billingwatch.postgres.statements import load_statements
from billingwatch.readiness import Readiness
from billingwatch.settings import Settings
from billingwatch.tenancy.analyst_guard import make_guard
from billingwatch.tenancy.budget import Budget
from billingwatch.tenancy.fleet_settings import check_fleet_settings
from billingwatch.tenancy.key_use import KeyUse
from billingwatch.tenancy.lanes import Lane, answer_within, control_plane, make_lanes
from billingwatch.tenancy.migrate import ensure_control_plane, fleet_state, tell_fleet_state
from billingwatch.tenancy.registry import Registry
from billingwatch.tenancy.sealing import open_seal
from billingwatch.tenancy.turns import Turns
from billingwatch.worker import Processor

log = structlog.get_logger()

GAUGE_SECONDS = 3.0  # that /metrics waits for the database
sql = load_statements(__file__, "service.sql")

SWITCH_SECONDS = 0.0005  # that a thread which scans a malformed body may keep the event loop waiting; Python's default is 5 ms
BACKTEST_LANES = 2  # per process; a tenant runs one backtest at a time, so one tenant leaves a lane to others
BACKTEST_WAIT = 60.0  # seconds that a backtest waits for a lane
BACKTEST_QUEUE = 4  # backtests of one tenant that may wait


class Service:
    """Receives events, serves reads and, unless told otherwise, processes. Make it inside the event loop that runs it."""

    def __init__(
        self,
        settings: Settings,
        dsn: str,
        *,
        processing: bool = True,
        clock: Callable[[], datetime] = utc_now,
        buckets: Buckets | None = None,
    ) -> None:
        self.settings = settings
        self.dsn = dsn
        self.clock = clock
        self.control = Lane(dsn, "control", statement_timeout=settings.statement_timeout)
        # For readiness and gauges, so that a queue for the control lane does not hide that the database answers.
        self.health = Lane(dsn, "health", statement_timeout=settings.statement_timeout)
        self._seal = open_seal(settings)
        self.registry = Registry(self.control, self._seal, dsn)
        self.key_use = KeyUse(self.control, clock)
        self.reads = make_lanes(settings, dsn, "read", settings.read_lanes)
        self.backtests = make_lanes(settings, dsn, "backtest", BACKTEST_LANES)
        self.api_budget = Budget(share=settings.api_share / 100)
        self.read_turns = Turns(self.reads, rest=self.api_budget.delay)
        self.backtest_turns = Turns(self.backtests, wait_limit=BACKTEST_WAIT, queue_limit=BACKTEST_QUEUE)
        work = make_lanes(settings, dsn, "work", settings.work_lanes)
        self.processor = Processor(self.control, work, self.registry, clock) if processing else None
        self.guard = make_guard(settings, dsn) if processing else None
        self._ingest = make_lanes(settings, dsn, "ingest", settings.ingest_lanes)
        self.activity = Activity(self.control, clock)
        self.gate = Gate()  # of requests with an unknown API key
        self.exposition = Exposition(self.gauge)
        self._log = LogLimit()
        self._buckets = buckets  # shared with other server processes, or None
        self.recorder: Records
        self.receiver: Receiver
        self.readiness: Readiness

    async def start(self) -> None:
        """Check the database and start the parts.

        Raises DatabaseUnavailable, SchemaOutdated, SecretKeyUnusable, FleetSettingMismatch.
        """
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            async with control_plane(self.control) as connection:
                await ensure_control_plane(connection, isolation=self.settings.isolation, partitions=self.settings.partitions)
                await check_fleet_settings(connection, self.settings, self._seal)
                await tell_fleet_state(connection)
        except BaseException:
            await self.control.close()
            raise
        self.registry.start()
        self.key_use.start()
        on_recorded = self.processor.call if self.processor else _nobody
        self.recorder = await self.open_recorder(on_recorded)
        rate_limit = RateLimit(per_second=self.settings.rate_limit, burst_seconds=self.settings.rate_burst_seconds, buckets=self._buckets)
        self.receiver = Receiver(self.registry, rate_limit, self.recorder, self.clock, self.activity)
        self.activity.start()
        if self.processor:
            self.processor.start()
        if self.guard:
            self.guard.start()
        self.readiness = Readiness(self.health, self._seal, self.recorder, self.processor)

    async def open_recorder(self, on_recorded: Callable[[Iterable[int]], None]) -> Records:
        """Lanes; the lab has a service that records otherwise."""
        return Recorder(self._ingest, queue_limit=self.settings.queue_limit, on_recorded=on_recorded)

    async def close(self) -> None:
        """Commit what waits, finish the visits under way, let go of the database."""
        await self.readiness.close()
        await self.exposition.close()
        await self.recorder.close()
        if self.guard:
            await self.guard.close()
        if self.processor:
            await self.processor.close()
        await self.key_use.close()
        await self.activity.close()
        await self.registry.close()
        await asyncio.gather(self.reads.close(), self.backtests.close(), self.health.close(), self.control.close())

    async def gauge(self) -> None:
        """Bring the gauges up to date; those that need the database are left out while it is away."""
        lanes = [
            *self._ingest.lanes,
            *self.reads.lanes,
            *self.backtests.lanes,
            *(self.processor.lanes if self.processor else []),
            self.health,
            self.control,
        ]
        for lane in lanes:
            metrics.lane_tenants.labels(lane.name).set(lane.schemas_touched)
            metrics.lane_connected.labels(lane.name).set(lane.connected)
            metrics.lane_recycled.labels(lane.name).set(lane.recycled)
            metrics.lane_queue.labels(lane.name).set(lane.waiting)
        metrics.lane_queue.labels("read").set(self.read_turns.waiting)
        metrics.lane_queue.labels("backtest").set(self.backtest_turns.waiting)
        for recorder in self.recorder.lanes:
            metrics.lane_queue.labels(recorder.lane.name).set(recorder.depth)
        count_dropped_lines()
        try:
            async with answer_within(GAUGE_SECONDS), control_plane(self.health) as connection:
                [row] = await connection.fetch(sql["backlog"], self.clock())
                state = await fleet_state(connection)
        except (DatabaseUnavailable, asyncpg.PostgresError) as error:
            self._log.warning("service.gauges_incomplete", cause="database", error=str(error))
            return
        metrics.backlog.set(row["events"])
        metrics.backlog_age.set(row["age"])
        metrics.paused_events.set(row["paused"])
        metrics.dead_letters.set(row["dead_letters"])
        for name in state.__struct_fields__:
            metrics.tenants_not_at_head.labels(name).set(getattr(state, name))


def _nobody(_: Iterable[int]) -> None:
    """Processing happens elsewhere, and finds the events by polling."""
