"""A visit: one tenant's pending events are claimed, projected and looked at in one transaction, so that a crash repeats all of it or none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import asyncpg
import msgspec
import structlog

from billingwatch import metrics
from billingwatch.billing.readers import read_event
from billingwatch.billing.rows import Row
from billingwatch.billing.shapes import ProjectionError
from billingwatch.billing.store import project
from billingwatch.clock import utc_now
from billingwatch.detection.engine import DetectionOutcome, detect, judge_time, settle
from billingwatch.detection.tuning import Tuning, tuning_of
from billingwatch.postgres.connections import ControlConnection, TenantConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.lanes import Lane
from billingwatch.tenancy.tenants import Tenant

log = structlog.get_logger()
sql = load_statements(__file__, "visit.sql")

READ_AT_ONCE = 25  # events read before acknowledgements that wait for this process get their turn
JUDGED_EVERY = timedelta(hours=1)  # the finest grid of a detector of time
JUDGED_WITHIN = timedelta(minutes=5)  # of the hour; spreads the visits of a fleet
FIRST_JUDGED_AFTER = timedelta(minutes=5)  # so that a history which is being replayed is judged when it is complete
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


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """What time asks of the tenant."""

    kind: str
    due_at: datetime
    since: datetime | None


async def visit(lane: Lane, tenant: Tenant, *, as_of: datetime, limit: int = VISIT_LIMIT, judge_now: bool = False) -> Visited:
    """Handle up to `limit` pending events of the tenant, and what time asks for; whatever it raises, nothing was done.

    With `judge_now` the detectors of time judge everything up to `as_of` although that is not due yet, as the end of a replay.
    """
    try:
        return await _visit(lane, tenant, as_of=as_of, limit=limit, judge_now=judge_now)
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


async def _visit(lane: Lane, tenant: Tenant, *, as_of: datetime, limit: int, judge_now: bool) -> Visited:
    tuning = tuning_of(tenant)
    async with lane.scope(tenant) as connection:
        due = {row["kind"]: Due(**dict(row)) for row in await connection.fetch(sql["due"], tenant.tenant_id)}
        judgement = due.get("evaluate")
        claimed = await _claim(connection, tenant, limit)
        rows, dead = await _read(claimed)
        try:
            changes = await project(connection, rows) if rows else []
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            raise Unprojectable(str(error)) from error
        outcomes = []
        if changes:
            judged_until = judgement.since if judgement else None
            replayed = all(event.replayed for event in claimed)
            outcomes.append(await detect(connection, changes, as_of=as_of, tuning=tuning, judged_until=judged_until, replayed=replayed))
        if "settle" in due and due["settle"].due_at <= as_of:
            await connection.execute(sql["take_due"], tenant.tenant_id, as_of)
            outcomes.append(await settle(connection, as_of=as_of, tuning=tuning))
        # What still waits may belong before the instants to be judged.
        if len(claimed) < limit and (judge_now or (judgement is not None and judgement.due_at <= as_of)):
            outcomes.append(await _judge_time(connection, tenant, judgement, tuning, as_of, replayed=judge_now))
        elif judgement is None and claimed:
            await connection.execute(sql["plan_judgement"], tenant.tenant_id, as_of + FIRST_JUDGED_AFTER, None)
        if (due_at := _next_due(outcomes)) is not None:
            await connection.execute(sql["call_due"], tenant.tenant_id, due_at)
        if dead:
            await _bury(connection, tenant, dead)
    _report(tenant, claimed, dead, outcomes, utc_now())
    return Visited(events=len(claimed), dead=len(dead), more=len(claimed) == limit)


async def _judge_time(
    connection: TenantConnection, tenant: Tenant, judgement: Due | None, tuning: Tuning, as_of: datetime, *, replayed: bool
) -> DetectionOutcome:
    """Judge the instants since the last time, those of a time when nobody ran included, and plan the next."""
    until = as_of.replace(minute=0, second=0, microsecond=0)
    since = judgement.since if judgement and judgement.since else await connection.fetchval(sql["beginning"])
    outcome = DetectionOutcome()
    if since is not None and since < until:
        outcome = await judge_time(connection, since=since, until=until, as_of=as_of, tuning=tuning, replayed=replayed)
    spread = timedelta(seconds=tenant.tenant_id * 37 % JUDGED_WITHIN.total_seconds())
    await connection.execute(sql["plan_judgement"], tenant.tenant_id, until + JUDGED_EVERY + spread, until)
    return outcome


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


def _next_due(outcomes: Sequence[DetectionOutcome]) -> datetime | None:
    return min((outcome.settle_at for outcome in outcomes if outcome.settle_at is not None), default=None)


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
