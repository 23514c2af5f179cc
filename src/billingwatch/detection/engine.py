"""Detect: judge again what changed rows can affect, and reconcile with the stored anomalies.

Rows outside all looks keep their verdicts, so the stored anomalies speak for them. An anomaly that a look touches is judged again from its
beginning to its end, since incidents can grow, shrink, merge and split.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec

from billingwatch.billing.store import Change
from billingwatch.detection.detector import Detector, Incident, Severity, Thresholds
from billingwatch.detection.looks import Span, looks_of, shift
from billingwatch.detection.reconcile import Found, Revision, fingerprint_of, reconcile
from billingwatch.detection.registry import DETECTORS
from billingwatch.detection.store import (
    Anomaly,
    Resolution,
    Status,
    lock_anomalies,
    next_settlement,
    put_anomalies,
    settle_anomalies,
)
from billingwatch.postgres.connections import TenantConnection
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "engine.sql")

DEFAULTS: Mapping[str, Thresholds] = MappingProxyType({})


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """An anomaly that a visit wrote, as it is now."""

    anomaly_id: UUID
    detector: str
    severity: Severity
    status: Status
    resolution: Resolution | None


class DetectionOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a visit did to the anomalies."""

    opened: tuple[Finding, ...] = ()
    """New, or open again; what was over by the time it was found is here too, with status resolved."""
    updated: tuple[Finding, ...] = ()
    resolved: tuple[Finding, ...] = ()
    """Ended by events, by time, or retracted."""
    settle_at: datetime | None = None
    """When the first of the anomalies at hand ends by time, if nothing more happens."""


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one detector to judge again: the looks, and the span that also holds the anomalies they touch."""

    detector: Detector[Any]
    looks: tuple[Span, ...]
    span: Span


async def detect(
    tenant: TenantConnection, changes: Sequence[Change], *, as_of: datetime, thresholds: Mapping[str, Thresholds] = DEFAULTS
) -> DetectionOutcome:
    """Bring the tenant's anomalies up to date with rows that changed. `thresholds` are by detector; those not given are the defaults."""
    tuned = {name: thresholds.get(name, detector.thresholds()) for name, detector in DETECTORS.items()}
    looks = [(detector, look) for detector in DETECTORS.values() for look in looks_of(detector, changes, tuned[detector.name])]
    if not looks:
        return DetectionOutcome()
    revisions: list[Revision] = []
    ahead: list[datetime] = []
    for search in await _stirred(tenant, looks, tuned):
        found, revised = await _search(tenant, search, tuned[search.detector.name], as_of)
        revisions += revised
        ahead += (each.ends_at for each in found if each.ends_at is not None and each.ends_at > as_of)
    if revisions:
        await put_anomalies(tenant, [revision.after for revision in revisions])
    return _outcome(revisions, min(ahead, default=None))


async def settle(tenant: TenantConnection, *, as_of: datetime, thresholds: Mapping[str, Thresholds] = DEFAULTS) -> DetectionOutcome:
    """Resolve the anomalies that time has ended by now."""
    quiet = {name: detector.quiet(thresholds.get(name, detector.thresholds())) for name, detector in DETECTORS.items() if detector.settles}
    resolved = tuple(_finding(anomaly) for anomaly in await settle_anomalies(tenant, quiet, as_of=as_of))
    return DetectionOutcome(resolved=resolved, settle_at=await next_settlement(tenant, quiet))


async def _stirred(tenant: TenantConnection, looks: Sequence[tuple[Detector[Any], Span]], tuned: Mapping[str, Thresholds]) -> list[Search]:
    """Keep the looks in which something anomalous can be or was."""
    rows = await tenant.fetch(
        _stirred_statement(tuple(sorted({detector.name for detector, _ in looks}))),
        list(range(len(looks))),
        [detector.name for detector, _ in looks],
        [look.since for _, look in looks],
        [look.until for _, look in looks],
        [detector.quiet(tuned[detector.name]) for detector, _ in looks],
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


async def _search(tenant: TenantConnection, search: Search, thresholds: Thresholds, as_of: datetime) -> tuple[list[Found], list[Revision]]:
    detector, quiet = search.detector, search.detector.quiet(thresholds)
    rows = await tenant.fetch(detector.incidents, search.span.since, search.span.until, *detector.parameters(thresholds))
    incidents = [detector.judge(dict(row), thresholds) for row in rows]
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
            ends_at=shift(incident.last_seen_at, quiet) if detector.settles else incident.ended_at,
        )
        for fingerprint, incident in found.items()
        if _touched(incident, near) or any(_overlap(incident, anomaly) for anomaly in judged)
    ]
    holding = {each.fingerprint for each in at_hand}
    known = [anomaly for anomaly in stored if anomaly in judged or anomaly.fingerprint in holding]
    return at_hand, list(reconcile(detector.name, at_hand, known, quiet, as_of))


def _touched(run: Incident | Anomaly, near: Iterable[Span]) -> bool:
    return any(span.touches(run.opened_at, run.last_seen_at) for span in near)


def _overlap(incident: Incident, anomaly: Anomaly) -> bool:
    in_time = incident.opened_at <= anomaly.last_seen_at and anomaly.opened_at <= incident.last_seen_at
    return in_time and incident.subject == anomaly.subject


def _outcome(revisions: Iterable[Revision], settle_at: datetime | None) -> DetectionOutcome:
    opened, updated, resolved = [], [], []
    for revision in revisions:
        before, after = revision.before, revision.after
        if after.retracted or (before is not None and before.status in {"open", "acknowledged"} and after.status == "resolved"):
            resolved.append(_finding(after))
        elif before is None or before.retracted or (before.status == "resolved" and after.status != "resolved"):
            opened.append(_finding(after))
        else:
            updated.append(_finding(after))
    return DetectionOutcome(opened=tuple(opened), updated=tuple(updated), resolved=tuple(resolved), settle_at=settle_at)


def _finding(anomaly: object) -> Finding:
    return msgspec.convert(anomaly, Finding, from_attributes=True)
