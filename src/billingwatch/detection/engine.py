"""Detect: judge again what changed rows can affect, and revise the stored anomalies.

Rows outside all looks keep their verdicts, so the stored anomalies speak for them. An anomaly that a look touches is judged again from its
beginning to its end, since incidents can grow, shrink, merge and split.

A detector that fails raises, unless it is guarded: then what it did is undone, the others go on, and the outcome tells from when on it must
judge again. Until `rejudge` has done that it is `postponed`: it is not asked, and the outcome tells if that moment lies earlier now.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import msgspec

from billingwatch.billing.store import Change
from billingwatch.detection.detector import LATENESS, Detector, Incident, Thresholds
from billingwatch.detection.looks import AN_INSTANT, END, Span, instants, looks_of, pieces, shift
from billingwatch.detection.outcome import DetectionOutcome, Finding, Postponed, joined
from billingwatch.detection.registry import DETECTORS
from billingwatch.detection.revision import Found, Revision, fingerprint_of, overlap, revise
from billingwatch.detection.store import (
    Anomaly,
    delete_anomalies,
    lock_anomalies,
    next_settlement,
    put_anomalies,
    settle_anomalies,
)
from billingwatch.detection.tuning import UNTUNED, Tuning
from billingwatch.postgres.connections import UNAVAILABLE, TenantConnection
from billingwatch.postgres.savepoint import savepoint
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "engine.sql")

HISTORICAL_AFTER = LATENESS  # what is older when it is found is history, whoever told of it


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one detector to judge again: the looks, and the span that also holds the anomalies they touch."""

    detector: Detector[Any]
    looks: tuple[Span, ...]
    span: Span


async def detect(
    tenant: TenantConnection,
    changes: Sequence[Change],
    *,
    as_of: datetime,
    tuning: Tuning = UNTUNED,
    judged_until: datetime | None = None,
    replayed: bool = False,
    postponed: Collection[str] = (),
    guarded: bool = False,
) -> DetectionOutcome:
    """Bring the tenant's anomalies up to date with rows that changed.

    `judged_until` is the last instant that `judge_time` has judged, which late rows may change; `replayed`: the rows came from events
    that Stripe did not deliver just now.
    """
    looks = [
        (detector, look)
        for detector in DETECTORS.values()
        if detector.name not in tuning.off
        for look in looks_of(detector, changes, tuning.of(detector), judged_until=judged_until)
    ]
    asked = [(detector, look) for detector, look in looks if detector.name not in postponed]
    outcome = await _judge(tenant, asked, as_of=as_of, tuning=tuning, replayed=replayed, guarded=guarded)
    if len(asked) == len(looks):
        return outcome
    unasked = (Postponed(detector=detector.name, since=look.since, error=None) for detector, look in looks if detector.name in postponed)
    return msgspec.structs.replace(outcome, postponed=(*outcome.postponed, *unasked))


async def judge_time(
    tenant: TenantConnection,
    *,
    since: datetime,
    until: datetime,
    as_of: datetime,
    tuning: Tuning = UNTUNED,
    replayed: bool = False,
    postponed: Collection[str] = (),
    guarded: bool = False,
) -> DetectionOutcome:
    """Let the detectors of time judge the instants after `since` and up to `until`."""
    looks = []
    for detector in DETECTORS.values():
        if detector.every is not None and detector.name not in tuning.off and detector.name not in postponed:
            span = instants(Span(since=since + AN_INSTANT, until=until), detector.every)
            looks += [] if span is None else [(detector, span)]
    return await _judge(tenant, looks, as_of=as_of, tuning=tuning, replayed=replayed, guarded=guarded)


async def judge_slice(
    tenant: TenantConnection,
    *,
    since: datetime,
    until: datetime,
    judged_until: datetime | None,
    as_of: datetime,
    tuning: Tuning = UNTUNED,
    replayed: bool = False,
    postponed: Collection[str] = (),
) -> DetectionOutcome:
    """Let every detector evaluate a range again, because rows that they compare with arrived late; each is guarded."""
    looks: list[tuple[Detector[Any], Span]] = []
    for detector in DETECTORS.values():
        if detector.name in tuning.off or detector.name in postponed:
            continue
        span: Span | None = Span(since=since, until=until)
        if detector.every is not None:
            end = since if judged_until is None else min(until, judged_until)
            span = None if end <= since else instants(Span(since=since, until=end), detector.every)
        looks += [] if span is None else [(detector, span)]
    return await _judge(tenant, looks, as_of=as_of, tuning=tuning, replayed=replayed, guarded=True)


async def rejudge(
    tenant: TenantConnection,
    name: str,
    *,
    since: datetime,
    until: datetime = END,
    judged_until: datetime | None,
    as_of: datetime,
    tuning: Tuning = UNTUNED,
    replayed: bool = False,
) -> DetectionOutcome:
    """Let a postponed detector evaluate everything between `since` and `until`; guarded. One that is off or gone has nothing to do."""
    detector = DETECTORS.get(name)
    if detector is None or name in tuning.off:
        return DetectionOutcome()
    look: Span | None = Span(since=since, until=until)
    if detector.every is not None:
        within = None if judged_until is None or judged_until < since else Span(since=since, until=min(until, judged_until))
        look = within and instants(within, detector.every)
    looks = [] if look is None else [(detector, look)]
    return await _judge(tenant, looks, as_of=as_of, tuning=tuning, replayed=replayed, guarded=True)


async def beginning(tenant: TenantConnection) -> datetime | None:
    """When the tenant's history begins."""
    instant: datetime | None = await tenant.fetchval(sql["beginning"])
    return instant


async def find_incidents(
    tenant: TenantConnection, detector: Detector[Any], thresholds: Thresholds, *, since: datetime, until: datetime
) -> list[Incident]:
    """What a detector finds in a span of history with these thresholds; nothing is written."""
    span: Span | None = Span(since=since, until=until)
    if detector.every is not None:
        span = instants(Span(since=since, until=until), detector.every)
    if span is None:
        return []
    rows = await tenant.fetch(detector.incidents, span.since, span.until, *detector.parameters(thresholds))
    return [detector.judge(dict(row), thresholds) for row in rows]


async def _judge(
    tenant: TenantConnection,
    looks: Sequence[tuple[Detector[Any], Span]],
    *,
    as_of: datetime,
    tuning: Tuning,
    replayed: bool,
    guarded: bool,
) -> DetectionOutcome:
    if not guarded:
        return await _judge_together(tenant, looks, as_of, tuning, replayed=replayed)
    outcomes: list[DetectionOutcome] = []
    for name in dict.fromkeys(detector.name for detector, _ in looks):
        own = [(detector, look) for detector, look in looks if detector.name == name]
        try:
            async with savepoint(tenant):
                outcomes.append(await _judge_together(tenant, own, as_of, tuning, replayed=replayed))
        except UNAVAILABLE:
            raise
        except Exception as error:  # noqa: BLE001 - whatever one detector makes of hostile data must not stop the others
            failed = Postponed(detector=name, since=min(look.since for _, look in own), error=f"{type(error).__name__}: {error}")
            outcomes.append(DetectionOutcome(postponed=(failed,)))
    return joined(outcomes)


async def _judge_together(
    tenant: TenantConnection, looks: Sequence[tuple[Detector[Any], Span]], as_of: datetime, tuning: Tuning, *, replayed: bool
) -> DetectionOutcome:
    if not looks:
        return DetectionOutcome()
    revisions: list[Revision] = []
    ahead: list[datetime] = []
    for search in await _stirred(tenant, looks, tuning):
        async for part in _parts(tenant, search, tuning, as_of):
            found, revised = await _search(tenant, part, tuning, as_of, replayed=replayed)
            ahead += (each.ends_at for each in found if each.ends_at is not None and each.ends_at > as_of)
            if revised:
                await _write(tenant, revised, replayed=replayed)
                revisions += revised
    return _outcome(_last(revisions), min(ahead, default=None), tuning)


async def _write(tenant: TenantConnection, revisions: Sequence[Revision], *, replayed: bool) -> None:
    """Write revisions. What a replay finds and then explains leaves no row: nobody was alerted, and rows must not depend on the order."""
    retracted = {revision.after.anomaly_id for revision in revisions if revision.after.retracted and revision.after.historical}
    gone = retracted if replayed else set()
    if gone:
        await delete_anomalies(tenant, sorted(gone))
    if kept := [revision.after for revision in revisions if revision.after.anomaly_id not in gone]:
        await put_anomalies(tenant, kept)


async def _parts(tenant: TenantConnection, search: Search, tuning: Tuning, as_of: datetime) -> AsyncIterator[Search]:
    """Cut a long search, so that no statement evaluates an unbounded range. Each part is yielded after the one before it is written."""
    cut = [piece for look in search.looks for piece in pieces(search.detector, look, as_of=as_of)]
    if len(cut) == len(search.looks):
        yield search
        return
    for piece in cut:
        for part in await _stirred(tenant, [(search.detector, piece)], tuning):
            yield part


def _last(revisions: Iterable[Revision]) -> list[Revision]:
    """Join the revisions of one anomaly, which may be found in one part of a search and grow in the next."""
    found: dict[UUID, Revision] = {}
    for revision in revisions:
        first = found.get(revision.after.anomaly_id, revision)
        found[revision.after.anomaly_id] = Revision(before=first.before, after=revision.after)
    return list(found.values())


async def settle(tenant: TenantConnection, *, as_of: datetime, tuning: Tuning = UNTUNED) -> DetectionOutcome:
    """Resolve the anomalies that time has ended by now."""
    quiet = {name: detector.quiet(tuning.of(detector)) for name, detector in DETECTORS.items() if detector.settles}
    resolved = tuple(_finding(anomaly) for anomaly in await settle_anomalies(tenant, quiet, as_of=as_of))
    return DetectionOutcome(resolved=resolved, settle_at=await next_settlement(tenant, quiet))


async def _stirred(tenant: TenantConnection, looks: Sequence[tuple[Detector[Any], Span]], tuning: Tuning) -> list[Search]:
    """Keep the looks in which something anomalous can be or was."""
    rows = await tenant.fetch(
        _stirred_statement(tuple(sorted({detector.name for detector, _ in looks}))),
        list(range(len(looks))),
        [detector.name for detector, _ in looks],
        [look.since for _, look in looks],
        [look.until for _, look in looks],
        [detector.quiet(tuning.of(detector)) for detector, _ in looks],
    )
    searches: list[Search] = []
    for row in sorted(rows, key=lambda row: int(row["number"])):
        detector, look = looks[row["number"]]
        span = look if row["since"] is None else look.joined(Span(since=row["since"], until=row["until"]))
        last = searches[-1] if searches else None
        # Two looks may touch one anomaly, which is judged once.
        if last is not None and last.detector is detector and last.span.touches(span.since, span.until):
            searches[-1] = Search(detector=detector, looks=(*last.looks, look), span=last.span.joined(span))
        else:
            searches.append(Search(detector=detector, looks=(look,), span=span))
    return searches


@cache
def _stirred_statement(names: tuple[str, ...]) -> str:
    """Ask about these detectors only: each costs planning."""
    cases = (f"WHEN '{name}' THEN EXISTS ({DETECTORS[name].candidates})" for name in names)
    return sql["stirred"].replace("/* candidates */", "\n".join(cases))


async def _search(
    tenant: TenantConnection, search: Search, tuning: Tuning, as_of: datetime, *, replayed: bool
) -> tuple[list[Found], list[Revision]]:
    detector, thresholds = search.detector, tuning.of(search.detector)
    quiet = detector.quiet(thresholds)
    incidents = await find_incidents(tenant, detector, thresholds, since=search.span.since, until=search.span.until)
    found = {fingerprint_of(detector.name, incident): incident for incident in incidents}
    around = search.span.widened(quiet)
    stored = await lock_anomalies(tenant, detector.name, list(found), since=around.since, until=around.until)
    near = [look.widened(quiet) for look in search.looks]
    judged = [anomaly for anomaly in stored if not anomaly.retracted and _touched(anomaly, near)]
    # What no look touches is unchanged; the span may also cut it, so it must not be taken for a whole incident.
    at_hand = [
        Found(
            fingerprint=fingerprint,
            incident=incident,
            ends_at=_ends_at(detector, incident, quiet),
            historical=replayed or tuning.age(incident.last_seen_at, as_of=as_of) > HISTORICAL_AFTER,
        )
        for fingerprint, incident in found.items()
        if _touched(incident, near) or any(overlap(incident, anomaly) for anomaly in judged)
    ]
    holding = {each.fingerprint for each in at_hand}
    known = [anomaly for anomaly in stored if anomaly in judged or anomaly.fingerprint in holding]
    return at_hand, list(revise(detector.name, at_hand, known, quiet, as_of))


def _ends_at(detector: Detector[Any], incident: Incident, quiet: timedelta) -> datetime | None:
    if not detector.settles:
        return incident.ended_at
    settled = shift(incident.last_seen_at, quiet)
    return settled if incident.ended_at is None else min(incident.ended_at, settled)


def _touched(run: Incident | Anomaly, near: Iterable[Span]) -> bool:
    return any(span.touches(run.opened_at, run.last_seen_at) for span in near)


def _outcome(revisions: Iterable[Revision], settle_at: datetime | None, tuning: Tuning) -> DetectionOutcome:
    opened, updated, resolved = [], [], []
    for revision in revisions:
        before, after = revision.before, revision.after
        if after.retracted or (before is not None and before.status in {"open", "acknowledged"} and after.status == "resolved"):
            resolved.append(_finding(after))
        elif before is None or before.retracted or (before.status == "resolved" and after.status != "resolved"):
            muted = tuning.mute_of(after.detector, after.subject, after.opened_at) is not None
            opened.append(msgspec.structs.replace(_finding(after), muted=muted))
        else:
            updated.append(_finding(after))
    return DetectionOutcome(opened=tuple(opened), updated=tuple(updated), resolved=tuple(resolved), settle_at=settle_at)


def _finding(anomaly: object) -> Finding:
    return msgspec.convert(anomaly, Finding, from_attributes=True)
