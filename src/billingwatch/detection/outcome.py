"""What a judgement came to, for whoever counts, logs or tells people."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec

from billingwatch.detection.detector import Severity
from billingwatch.detection.store import Resolution, Status


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """An anomaly that a visit wrote, as it is now."""

    anomaly_id: UUID
    detector: str
    severity: Severity
    status: Status
    resolution: Resolution | None
    historical: bool
    muted: bool = False


class Postponed(msgspec.Struct, frozen=True, kw_only=True):
    """A detector that has not judged what it should have: everything from `since` on is to be judged later."""

    detector: str
    since: datetime
    error: str | None
    """Why it failed; None if it was postponed already."""


class DetectionOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a visit did to the anomalies."""

    opened: tuple[Finding, ...] = ()
    """New, or open again; what was over by the time it was found is here too, with status resolved."""
    updated: tuple[Finding, ...] = ()
    resolved: tuple[Finding, ...] = ()
    """Ended by events, by time, or retracted."""
    settle_at: datetime | None = None
    """When the first of the anomalies at hand ends by time, if nothing more happens."""
    postponed: tuple[Postponed, ...] = ()


def joined(outcomes: Iterable[DetectionOutcome]) -> DetectionOutcome:
    """One outcome of several."""
    each = list(outcomes)
    return DetectionOutcome(
        opened=tuple(finding for one in each for finding in one.opened),
        updated=tuple(finding for one in each for finding in one.updated),
        resolved=tuple(finding for one in each for finding in one.resolved),
        settle_at=min((one.settle_at for one in each if one.settle_at is not None), default=None),
        postponed=tuple(postponed for one in each for postponed in one.postponed),
    )
