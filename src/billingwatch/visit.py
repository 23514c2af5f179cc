"""A visit: one tenant's pending events are claimed, projected and looked at in one transaction, so that a crash repeats all of it or none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec
import structlog

from billingwatch import metrics
from billingwatch.billing.readers import read_event
from billingwatch.billing.rows import Row
from billingwatch.billing.shapes import ProjectionError
from billingwatch.billing.store import project
from billingwatch.clock import utc_now
from billingwatch.detection.outcome import DetectionOutcome
from billingwatch.judgement import judge_of
from billingwatch.postgres.connections import UNAVAILABLE, ControlConnection, TenantConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.lanes import Lane
from billingwatch.tenancy.tenants import Tenant

log = structlog.get_logger()
sql = load_statements(__file__, "visit.sql")

READ_AT_ONCE = 25  # events read before acknowledgements that wait for this process get their turn
VISIT_LIMIT = 500  # events per transaction; bounds how long a lane is held


class Visited(msgspec.Struct, frozen=True, kw_only=True):
    """What a visit did; `more` when the tenant may have more events waiting."""

    events: int
    dead: int
    more: bool


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A pending event that this visit took."""

    event_id: str
    received_at: datetime
    replayed: bool
    """It did not come through the webhook."""
    payload: str


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """An event that could not be projected, and why."""

    event_id: str
    error: str
    failed_at: datetime


class Unprojectable(Exception):
    """Postgres refused the rows of a visit's events."""


class Unjudgeable(Exception):
    """A detector failed."""


async def visit(lane: Lane, tenant: Tenant, *, as_of: datetime, limit: int = VISIT_LIMIT, judge_now: bool = False) -> Visited:
    """Handle up to `limit` pending events of the tenant, and what time asks for; whatever it raises, nothing was done.

    With `judge_now` the detectors of time judge everything up to `as_of` although that is not due yet, as the end of a replay.
    """
    try:
        try:
            return await _visit(lane, tenant, as_of=as_of, limit=limit, judge_now=judge_now)
        except Unjudgeable:
            return await _visit(lane, tenant, as_of=as_of, limit=limit, judge_now=judge_now, guarded=True)
    except Unprojectable as error:
        if limit > 1:
            return await _visit_one_by_one(lane, tenant, as_of=as_of, limit=limit)
        return await _bury_next(lane, tenant, error)


async def _visit_one_by_one(lane: Lane, tenant: Tenant, *, as_of: datetime, limit: int) -> Visited:
    """After Postgres refused a visit's rows: each event in a transaction of its own, so that only the culprit is set aside."""
    events = dead = 0
    for _ in range(limit):
        one = await visit(lane, tenant, as_of=as_of, limit=1)
        events, dead = events + one.events, dead + one.dead
        if not one.more:
            return Visited(events=events, dead=dead, more=False)
    return Visited(events=events, dead=dead, more=True)


async def _visit(lane: Lane, tenant: Tenant, *, as_of: datetime, limit: int, judge_now: bool, guarded: bool = False) -> Visited:
    async with lane.scope(tenant) as connection:
        judge = await judge_of(connection, tenant, as_of=as_of, guarded=guarded)
        claimed = await _claim(connection, tenant, limit)
        rows, dead = await _read(claimed)
        try:
            changes = await project(connection, rows) if rows else []
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            raise Unprojectable(str(error)) from error
        try:
            if changes:
                await judge.changes(changes, replayed=all(event.replayed for event in claimed))
            await judge.postponed()
            # What still waits may belong before the instants to be judged.
            await judge.time(now=judge_now, complete=len(claimed) < limit, events=bool(claimed))
            # Last: after downtime an anomaly that goes on has only now been seen again.
            await judge.settle()
        except UNAVAILABLE:
            raise
        except Exception as error:
            if guarded:
                raise
            raise Unjudgeable from error
        await judge.plan()
        if dead:
            await _bury(connection, tenant, dead)
    _report(tenant, claimed, dead, judge.outcomes, utc_now())
    return Visited(events=len(claimed), dead=len(dead), more=len(claimed) == limit)


async def _claim(connection: TenantConnection, tenant: Tenant, limit: int) -> list[Claimed]:
    rows = await connection.fetch(sql["claim"], tenant.tenant_id, limit)
    return [
        Claimed(event_id=row["event_id"], received_at=row["received_at"], replayed=row["replayed"], payload=row["payload"]) for row in rows
    ]


async def _read(claimed: Sequence[Claimed]) -> tuple[list[Row], dict[str, str]]:
    rows: list[Row] = []
    dead: dict[str, str] = {}
    for number, event in enumerate(claimed, start=1):
        if number % READ_AT_ONCE == 0:
            await asyncio.sleep(0)
        try:
            rows.extend(read_event(msgspec.json.decode(event.payload)))
        except (ProjectionError, msgspec.DecodeError, RecursionError) as error:
            dead[event.event_id] = str(error)
        except Exception as error:  # a shape nobody foresaw must not stop the tenant's other events
            log.exception("visit.reader_failed", event_id=event.event_id)
            dead[event.event_id] = f"{type(error).__name__}: {error}"
    return rows, dead


async def _bury_next(lane: Lane, tenant: Tenant, error: Unprojectable) -> Visited:
    async with lane.scope(tenant) as connection:
        claimed = await _claim(connection, tenant, 1)
        await _bury(connection, tenant, {event.event_id: str(error) for event in claimed})
    return Visited(events=len(claimed), dead=len(claimed), more=bool(claimed))


async def _bury(connection: TenantConnection, tenant: Tenant, dead: dict[str, str]) -> None:
    await connection.execute(sql["bury"], tenant.tenant_id, list(dead), list(dead.values()))


def _report(
    tenant: Tenant, claimed: Sequence[Claimed], dead: dict[str, str], outcomes: Sequence[DetectionOutcome], done_at: datetime
) -> None:
    metrics.processed.labels("projected").inc(len(claimed) - len(dead))
    metrics.processed.labels("dead").inc(len(dead))
    for event in claimed:
        metrics.event_to_verdict.observe((done_at - event.received_at).total_seconds())
    for event_id, error in dead.items():
        log.warning("visit.event_buried", tenant=tenant.name, event_id=event_id, error=error)
    for outcome in outcomes:
        for each in outcome.postponed:
            if each.error is not None:
                metrics.detection_failures.labels(each.detector).inc()
                log.error(
                    "visit.detector_failed", tenant=tenant.name, detector=each.detector, since=each.since.isoformat(), error=each.error
                )
        for change in ("opened", "updated", "resolved"):
            for finding in getattr(outcome, change):
                metrics.anomalies.labels(finding.detector, change).inc()
        for finding in outcome.opened:
            log.info(
                "visit.anomaly_opened",
                tenant=tenant.name,
                detector=finding.detector,
                historical=finding.historical,
                muted=finding.muted,
                severity=finding.severity,
                anomaly_id=str(finding.anomaly_id),
            )


async def retry_dead_letters(control: ControlConnection, tenant_id: int, event_id: str | None, *, as_of: datetime) -> int:
    """Queue one dead letter of the tenant, or all, for another visit; return how many."""
    tag = await control.execute(sql["retry_dead_letters"], tenant_id, event_id, as_of)
    return int(tag.rpartition(" ")[2])


async def list_dead_letters(control: ControlConnection, tenant_id: int) -> list[DeadLetter]:
    """The tenant's, latest first."""
    return [DeadLetter(**dict(row)) for row in await control.fetch(sql["list_dead_letters"], tenant_id)]
