"""The service: every long-lived part of one process, made in one place, started and closed in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import asyncpg
import structlog

from billingwatch import metrics
from billingwatch.clock import utc_now
from billingwatch.errors import DatabaseUnavailable
from billingwatch.ingest.activity import Activity
from billingwatch.ingest.rate_limit import Buckets, RateLimit
from billingwatch.ingest.receive import Receiver
from billingwatch.ingest.recorder import Recorder, Records
from billingwatch.postgres.statements import load_statements
from billingwatch.settings import Settings
from billingwatch.tenancy.lanes import Lane, control_plane, make_lanes
from billingwatch.tenancy.migrate import ensure_control_plane, fleet_state, tell_fleet_state
from billingwatch.tenancy.registry import Registry
from billingwatch.tenancy.sealing import open_seal
from billingwatch.worker import Processor

log = structlog.get_logger()
sql = load_statements(__file__, "service.sql")


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
        self.registry = Registry(self.control, open_seal(settings), dsn)
        self.reads = make_lanes(settings, dsn, "read", settings.read_lanes)
        self.backtests = Lane(dsn, "backtest", statement_timeout=settings.statement_timeout)
        work = make_lanes(settings, dsn, "work", settings.work_lanes)
        self.processor = Processor(self.control, work, self.registry, clock) if processing else None
        self._ingest = make_lanes(settings, dsn, "ingest", settings.ingest_lanes)
        self.activity = Activity(self.control, clock)
        self._buckets = buckets  # shared with other server processes, or None
        self.recorder: Records
        self.receiver: Receiver

    async def start(self) -> None:
        """Check the database and start the parts. DatabaseUnavailable, SchemaOutdated."""
        try:
            async with control_plane(self.control) as connection:
                await ensure_control_plane(connection, isolation=self.settings.isolation, partitions=self.settings.partitions)
                await tell_fleet_state(connection)
        except BaseException:
            await self.control.close()
            raise
        self.registry.start()
        on_recorded = self.processor.call if self.processor else _nobody
        self.recorder = await self.open_recorder(on_recorded)
        rate_limit = RateLimit(per_second=self.settings.rate_limit, burst_seconds=self.settings.rate_burst_seconds, buckets=self._buckets)
        self.receiver = Receiver(self.registry, rate_limit, self.recorder, self.clock, self.activity)
        self.activity.start()
        if self.processor:
            self.processor.start()

    async def open_recorder(self, on_recorded: Callable[[Iterable[int]], None]) -> Records:
        """Lanes; the lab has a service that records otherwise."""
        return Recorder(self._ingest, queue_limit=self.settings.queue_limit, on_recorded=on_recorded)

    async def close(self) -> None:
        """Commit what waits, finish the visits under way, let go of the database."""
        await self.recorder.close()
        if self.processor:
            await self.processor.close()
        await self.activity.close()
        await self.registry.close()
        await self.reads.close()
        await self.backtests.close()
        await self.control.close()

    async def check(self) -> None:
        """Ask the database something; DatabaseUnavailable."""
        async with control_plane(self.control) as connection:
            await connection.fetchval(sql["ping"])

    async def gauge(self) -> None:
        """Bring the gauges up to date; those that need the database are left out while it is away."""
        lanes = [*self._ingest.lanes, *self.reads.lanes, *(self.processor.lanes if self.processor else []), self.control]
        for lane in lanes:
            metrics.lane_tenants.labels(lane.name).set(lane.schemas_touched)
            metrics.lane_connected.labels(lane.name).set(lane.connected)
            metrics.lane_recycled.labels(lane.name).set(lane.recycled)
            metrics.lane_queue.labels(lane.name).set(lane.waiting)
        for recorder in self.recorder.lanes:
            metrics.lane_queue.labels(recorder.lane.name).set(recorder.depth)
        try:
            async with control_plane(self.control) as connection:
                [row] = await connection.fetch(sql["backlog"], self.clock())
                state = await fleet_state(connection)
        except (DatabaseUnavailable, asyncpg.PostgresError) as error:
            log.warning("service.gauges_incomplete", error=str(error))
            return
        metrics.backlog.set(row["events"])
        metrics.backlog_age.set(row["age"])
        metrics.dead_letters.set(row["dead_letters"])
        for name in state.__struct_fields__:
            metrics.tenants_not_at_head.labels(name).set(getattr(state, name))


def _nobody(_: Iterable[int]) -> None:
    """Processing happens elsewhere, and finds the events by polling."""
