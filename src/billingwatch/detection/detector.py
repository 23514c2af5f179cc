"""What a detector is: the SQL that finds incidents, thresholds, and a judgement of the rows that come back. Nothing here does I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import msgspec

from billingwatch.billing.money import format_money

Severity: TypeAlias = Literal["info", "warning", "critical"]
Row: TypeAlias = Mapping[str, Any]

EVIDENCE_LIMIT = 50  # ids of one kind that an anomaly lists; its numbers count them all
LATENESS = timedelta(days=3)  # how long Stripe goes on delivering an event


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tenant may tune: each field has a default, bounds, a unit and a description."""


ThresholdsT = TypeVar("ThresholdsT", bound=Thresholds)


def threshold(description: str, *, unit: str, ge: float, le: float) -> msgspec.Meta:
    """Describe a field of Thresholds."""
    return msgspec.Meta(ge=ge, le=le, description=description, extra_json_schema={"x-unit": unit})


def no_time(_: object) -> timedelta:
    """At once; the reach, quiet or warm-up of detectors that need none."""
    return timedelta(0)


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """A maximal run of anomalous rows of one subject, as history shows it."""

    subject: str
    opened_at: datetime
    last_seen_at: datetime
    ended_at: datetime | None = None
    """When an event ended it. A detector that `settles` may leave that to time, which ends it if no event does so before."""
    severity: Severity
    summary: str
    amounts: dict[str, int]
    """At risk, in minor units per currency."""
    evidence: dict[str, Any]
    """`window`, `numbers`, `objects`, `event_ids` (at most EVIDENCE_LIMIT) and `events`, how many there are."""


class Watch(msgspec.Struct, Generic[ThresholdsT], frozen=True, kw_only=True):
    """A table that a detector reads."""

    columns: frozenset[str]
    """An insert, or a change of one of these, can change verdicts."""
    reach: Callable[[ThresholdsT], timedelta]
    """The latest row whose verdict it can change, counted from the created_at of what changed. Earlier rows are never affected."""


class Detector(msgspec.Struct, Generic[ThresholdsT], frozen=True, kw_only=True):
    """One way in which billing goes wrong."""

    name: str
    title: str
    description: str
    thresholds: type[ThresholdsT]
    watches: Mapping[str, Watch[ThresholdsT]]
    quiet: Callable[[ThresholdsT], timedelta]
    """Two anomalous rows of one subject that are further apart belong to two incidents."""
    settles: bool
    """The quiet after its last anomalous row ends an incident, where no event ended it before."""
    every: timedelta | None = None
    """For a detector that judges time itself: what it judges are the instants of a grid of this step (UTC). Its `incidents` get the first and
    the last of them as since and until; opened_at and last_seen_at are instants of the grid, and its watches say how late rows reach them."""
    warm_up: Callable[[ThresholdsT], timedelta] = no_time
    """How much history it needs; before that it is learning, and its SQL finds nothing."""
    candidates: str
    """SELECT that finds a row if a verdict between look.since and look.until (look.quiet: as above) can be anomalous; cheap, never wrong."""
    incidents: str
    """SELECT with parameters since, until, then those of `parameters`: one row per incident whose rows were created between the two."""
    parameters: Callable[[ThresholdsT], tuple[object, ...]]
    judge: Callable[[Row, ThresholdsT], Incident]


def subject_of(name: str, account: str) -> str:
    """Name a subject; what lives on a connected account is told apart."""
    return f"{name} {account}" if account else name


def evidence_of(*, since: datetime, until: datetime, event_ids: Sequence[str], events: int, numbers: Row, objects: Row) -> dict[str, Any]:
    """Bring evidence into the shape that all anomalies share."""
    return {
        "window": {"since": since.isoformat(), "until": until.isoformat()},
        "numbers": dict(numbers),
        "objects": dict(objects),
        "event_ids": list(event_ids),
        "events": events,
    }


def say_amounts(amounts: Mapping[str, int]) -> str:
    """Write amounts for people, one beside the other: currencies are never added up."""
    return " and ".join(format_money(amounts[currency], currency) for currency in sorted(amounts))
