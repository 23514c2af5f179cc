"""A visit: one tenant's pending events are claimed, projected and looked at in one transaction, so that a crash repeats all of it or none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from itertools import islice

import asyncpg
import msgspec
import structlog

from billingwatch import metrics
from billingwatch.billing.events import decode_payload
from billingwatch.billing.readers import read_event
from billingwatch.billing.rows import Row
from billingwatch.billing.shapes import ProjectionError
from billingwatch.billing.store import project
from billingwatch.clock import utc_now
from billingwatch.detection.outcome import DetectionOutcome
from billingwatch.judgement import judge_of
from billingwatch.log_limit import LogLimit
from billingwatch.postgres.connections import UNAVAILABLE, ControlConnection, TenantConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.lanes import Lane
from billingwatch.tenancy.tenants import Tenant

log = structlog.get_logger()
sql = load_statements(__file__, "visit.sql")

READ_AT_ONCE = (16, 64)  # events in memory together: at first, and after slices that were small
SMALL_BYTES = 1024 * 1024  # of payloads; after a smaller slice the next has twice as many events
LARGE_PAYLOAD = 64 * 1024  # characters
VISIT_BYTES = 16 * 1024 * 1024  # of payloads per transaction; the slice that exceeds it is the last
VISIT_LIMIT = 500  # events per transaction; bounds how long a lane is held
ERROR_LENGTH = 1000  # characters of a dead letter's error
ERRORS_LOGGED = 20  # dead letters of one visit, and of a tenant in a minute, that get a log line each

_buried = LogLimit(lines=ERRORS_LOGGED)
_many_buried = LogLimit()


class Visited(msgspec.Struct, frozen=True, kw_only=True):
    """What a visit did; `more` when another visit has events to handle or, if `behind`, slices of time to evaluate."""

    events: int
    dead: int
    more: bool
    behind: bool = False


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A pending event that this visit took."""

    event_id: str
    received_at: datetime
    replayed: bool
    """It did not come through the webhook."""


class Claim(msgspec.Struct, kw_only=True):
    """Events that a visit took from the queue, and what was read from them."""

    events: list[Claimed] = msgspec.field(default_factory=list)
    rows: list[Row] = msgspec.field(default_factory=list)
    dead: dict[str, str] = msgspec.field(default_factory=dict)
    more: bool = False
    """The limit of events or of bytes ended the claim: more may wait."""
    faults: int = 0
    """Events on which a reader failed in a way that it does not foresee."""


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
        claim = await _claim(connection, tenant, limit)
        await judge.expect(claim.rows)
        try:
            changes = await project(connection, claim.rows) if claim.rows else []
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            raise Unprojectable(str(error)) from error
        try:
            if changes:
                await judge.changes(changes, replayed=all(event.replayed for event in claim.events))
            await judge.postponed(now=judge_now, complete=not claim.more)
            # What still waits may belong before the instants to be judged.
            await judge.time(now=judge_now, complete=not claim.more, events=bool(claim.events))
            await judge.history(now=judge_now, complete=not claim.more)
            # Last: after downtime an anomaly that goes on has only now been seen again.
            await judge.settle()
        except (*UNAVAILABLE, asyncpg.LockNotAvailableError):
            raise
        except Exception as error:
            if guarded:
                raise
            raise Unjudgeable from error
        await judge.plan()
        if claim.dead:
            await _bury(connection, tenant, claim.dead)
    _report(tenant, claim.events, claim.dead, judge.outcomes, utc_now())
    return Visited(events=len(claim.events), dead=len(claim.dead), more=claim.more or judge.behind, behind=judge.behind)


async def _claim(connection: TenantConnection, tenant: Tenant, limit: int) -> Claim:
    """Take the tenant's oldest pending events from the queue, in slices, so that few payloads are in memory together."""
    claim = Claim()
    total, at_once = 0, READ_AT_ONCE[0]
    while not claim.more:
        wanted = min(at_once, limit - len(claim.events))
        count, size = await _claim_slice(connection, tenant, wanted, claim)
        total += size
        if count < wanted:
            break
        claim.more = total >= VISIT_BYTES or len(claim.events) == limit
        at_once = min(2 * at_once, READ_AT_ONCE[1]) if size < SMALL_BYTES else READ_AT_ONCE[0]
        await asyncio.sleep(0)  # answers to senders that wait for this process come first
    return claim


async def _claim_slice(connection: TenantConnection, tenant: Tenant, limit: int, claim: Claim) -> tuple[int, int]:
    """Add the next pending events to the claim; return how many, and the size of their payloads."""
    records = await connection.fetch(sql["claim"], tenant.tenant_id, limit)
    for record in records:
        _read(claim, tenant, record)
        if len(record["payload"]) > LARGE_PAYLOAD:
            await asyncio.sleep(0)  # reading takes milliseconds; answers to senders that wait for this process come first
    return len(records), sum(len(record["payload"]) for record in records)


def _read(claim: Claim, tenant: Tenant, record: asyncpg.Record) -> None:
    """Add a pending event to the claim, and its rows or the reason why it has none."""
    event_id = record["event_id"]
    claim.events.append(Claimed(event_id=event_id, received_at=record["received_at"], replayed=record["replayed"]))
    try:
        claim.rows.extend(read_event(decode_payload(record["payload"])))
    except (ProjectionError, RecursionError) as error:
        claim.dead[event_id] = str(error)
    except Exception as error:  # a defect of a reader must not stop the tenant's other events
        claim.faults += 1
        if claim.faults == 1:
            log.exception("visit.reader_failed", tenant=tenant.name, event_id=event_id)
        claim.dead[event_id] = f"{type(error).__name__}: {error}"


async def _bury_next(lane: Lane, tenant: Tenant, error: Unprojectable) -> Visited:
    async with lane.scope(tenant) as connection:
        claim = await _claim(connection, tenant, 1)
        await _bury(connection, tenant, {event.event_id: str(error) for event in claim.events})
    return Visited(events=len(claim.events), dead=len(claim.events), more=claim.more)


async def _bury(connection: TenantConnection, tenant: Tenant, dead: dict[str, str]) -> None:
    # An error may quote the event: PostgreSQL stores neither a NUL character nor half a surrogate pair.
    errors = [error[:ERROR_LENGTH].replace("\0", "").encode(errors="replace").decode() for error in dead.values()]
    await connection.execute(sql["bury"], tenant.tenant_id, list(dead), errors)


def _report(
    tenant: Tenant, claimed: Sequence[Claimed], dead: dict[str, str], outcomes: Sequence[DetectionOutcome], done_at: datetime
) -> None:
    metrics.processed.labels("projected").inc(len(claimed) - len(dead))
    metrics.processed.labels("dead").inc(len(dead))
    for event in claimed:
        metrics.event_to_verdict.observe((done_at - event.received_at).total_seconds())
    # A sender can cause any number of dead letters; `billingwatch events failed` lists them all.
    for event_id, error in islice(dead.items(), ERRORS_LOGGED):
        _buried.warning("visit.event_buried", cause=tenant.tenant_id, tenant=tenant.name, event_id=event_id, error=error)
    if len(dead) > ERRORS_LOGGED:
        _many_buried.warning("visit.events_buried", cause=tenant.tenant_id, tenant=tenant.name, events=len(dead), logged=ERRORS_LOGGED)
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
