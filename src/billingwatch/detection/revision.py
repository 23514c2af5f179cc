"""Incidents as history shows them against anomalies as they are stored: what to write. A pure function."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from uuid import uuid4

import msgspec

from billingwatch.detection.detector import Incident
from billingwatch.detection.store import Anomaly, Resolution, Status


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """An incident with what identifies it, and when it is over: an instant that may lie ahead, null while only an event can end it."""

    fingerprint: str
    incident: Incident
    ends_at: datetime | None
    historical: bool = False


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """An anomaly to write; `before` is what is stored of it."""

    before: Anomaly | None
    after: Anomaly


def fingerprint_of(detector: str, incident: Incident) -> str:
    """Identify an incident: the same history gives the same fingerprint."""
    return hashlib.sha256(f"{detector}\n{incident.subject}\n{incident.opened_at.isoformat()}".encode()).hexdigest()[:32]


def overlap(incident: Incident, anomaly: Anomaly, quiet: timedelta = timedelta(0)) -> bool:
    """Whether the two are of one subject and no further apart than the quiet."""
    return (
        incident.subject == anomaly.subject
        and incident.opened_at - anomaly.last_seen_at <= quiet
        and anomaly.opened_at - incident.last_seen_at <= quiet
    )


def revise(detector: str, found: Sequence[Found], stored: Sequence[Anomaly], quiet: timedelta, as_of: datetime) -> Iterator[Revision]:
    """Revise what is stored. `stored` are the anomalies whose rows were judged again, and retracted ones that may have come back."""
    matches, unmatched = match(found, stored, quiet)
    for each, before in matches:
        after = _revised(detector, each, before, as_of)
        if before is None or after != before:
            yield Revision(before=before, after=msgspec.structs.replace(after, updated_at=as_of))
    for anomaly in unmatched:
        if not anomaly.closed_by_person:
            yield Revision(before=anomaly, after=_retracted(anomaly, as_of))


def match(found: Sequence[Found], stored: Sequence[Anomaly], quiet: timedelta) -> tuple[list[tuple[Found, Anomaly | None]], list[Anomaly]]:
    """Which incident is which anomaly, one to one; then the anomalies that no incident is."""
    holders = {anomaly.fingerprint: anomaly for anomaly in stored}
    unmatched = {anomaly.anomaly_id: anomaly for anomaly in stored if not anomaly.retracted}
    matches: list[tuple[Found, Anomaly | None]] = []
    rest: list[Found] = []
    for each in found:
        holder = holders.get(each.fingerprint)
        if holder is None:
            rest.append(each)
        else:
            unmatched.pop(holder.anomaly_id, None)
            matches.append((each, holder))
    # The first row of an incident can change with late events, and its fingerprint with it: then it is the anomaly that it overlaps.
    for each in rest:
        overlapping = next((anomaly for anomaly in unmatched.values() if overlap(each.incident, anomaly, quiet)), None)
        if overlapping is not None:
            unmatched.pop(overlapping.anomaly_id)
        matches.append((each, overlapping))
    return matches, list(unmatched.values())


def _revised(detector: str, found: Found, before: Anomaly | None, as_of: datetime) -> Anomaly:
    status, resolution, resolved_at = _standing(found, before, as_of)
    return Anomaly(
        anomaly_id=before.anomaly_id if before else uuid4(),
        detector=detector,
        subject=found.incident.subject,
        fingerprint=found.fingerprint,
        status=status,
        severity=found.incident.severity,
        summary=found.incident.summary,
        opened_at=found.incident.opened_at,
        last_seen_at=found.incident.last_seen_at,
        resolved_at=resolved_at,
        resolution=resolution,
        detected_at=before.detected_at if before else as_of,
        updated_at=before.updated_at if before else as_of,
        acknowledged_at=before.acknowledged_at if before else None,
        reason=before.reason if before else None,
        amounts=found.incident.amounts,
        evidence=found.incident.evidence,
        historical=found.historical if before is None else before.historical and (found.historical or _unchanged(found.incident, before)),
    )


def _unchanged(incident: Incident, before: Anomaly) -> bool:
    """Nothing that is new speaks for it: it was only judged again beside something else."""
    return (incident.last_seen_at, incident.severity, incident.evidence) == (before.last_seen_at, before.severity, before.evidence)


def _standing(found: Found, before: Anomaly | None, as_of: datetime) -> tuple[Status, Resolution | None, datetime | None]:
    if before is not None and before.closed_by_person:
        return before.status, before.resolution, before.resolved_at and max(before.resolved_at, found.incident.opened_at)
    if found.ends_at is not None and found.ends_at <= as_of:
        return "resolved", "automatic", found.ends_at
    return "acknowledged" if before is not None and before.acknowledged_at else "open", None, None


def _retracted(anomaly: Anomaly, as_of: datetime) -> Anomaly:
    return msgspec.structs.replace(anomaly, status="resolved", resolution="retracted", resolved_at=anomaly.last_seen_at, updated_at=as_of)
