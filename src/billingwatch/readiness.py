"""Readiness: the conditions under which this process records events, and this or another one processes them."""

from __future__ import annotations

import asyncio

import asyncpg
import structlog

from billingwatch.errors import DatabaseUnavailable, NotReady, SecretKeyUnusable
from billingwatch.ingest.recorder import Records
from billingwatch.tenancy.fleet_settings import check_key_sample, key_sample
from billingwatch.tenancy.lanes import Lane, answer_within, control_plane
from billingwatch.tenancy.processors import count_processors
from billingwatch.tenancy.sealing import Seal
from billingwatch.worker import Processor

log = structlog.get_logger()

DATABASE_SECONDS = 1.5  # that a check waits for the database, so that it is answered within 2 s
SILENT = "the database does not answer"
FAILED = "the check of the database failed; see the log"
KEY = "the secret key does not decrypt the signing secrets of this database"
NO_PROCESSOR = "no process has reported in the last 30 s that it processes events"
PROCESSOR = "a task of this process that processes events has ended"


class Readiness:
    """Checks every condition; concurrent checks share one query."""

    def __init__(self, control: Lane, seal: Seal, recorder: Records, processor: Processor | None) -> None:
        self._control = control
        self._seal = seal
        self._recorder = recorder
        self._processor = processor
        self._query: asyncio.Task[list[str]] | None = None
        self._reported: list[str] | None = None

    async def check(self) -> None:
        """Raise NotReady with each condition that does not hold. Returns within 2 s also without a database."""
        if self._query is None or self._query.done():
            self._query = asyncio.create_task(self._database(), name="readiness")
        query = self._query
        await asyncio.wait({query}, timeout=DATABASE_SECONDS)
        conditions = [*self._tasks(), *(query.result() if query.done() else [SILENT])]
        if conditions != self._reported:
            self._reported = conditions
            if conditions:
                log.warning("service.not_ready", conditions=conditions)
            else:
                log.info("service.ready")
        if conditions:
            raise NotReady(conditions=conditions)

    async def close(self) -> None:
        if self._query is not None:
            self._query.cancel()
            await asyncio.gather(self._query, return_exceptions=True)

    def _tasks(self) -> list[str]:
        """Conditions inside this process."""
        found = []
        for recorder in self._recorder.lanes:
            if not recorder.alive:
                found.append(f"a task of {recorder.lane.name} that records events has ended")
            if recorder.refusing:
                found.append(f"{recorder.lane.name} could not record its last events")
        if self._processor is not None and not self._processor.alive:
            found.append(PROCESSOR)
        return found

    async def _database(self) -> list[str]:
        try:
            async with answer_within(), control_plane(self._control) as connection:
                sample = await key_sample(connection)
                processors = await count_processors(connection)
            found = [] if processors else [NO_PROCESSOR]
            try:
                check_key_sample(self._seal, sample)
            except SecretKeyUnusable:
                found.append(KEY)
        except (DatabaseUnavailable, asyncpg.PostgresError):
            return [SILENT]
        except Exception:
            log.exception("service.readiness_failed")
            return [FAILED]
        return found
