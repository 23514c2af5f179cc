"""Looks: which ranges of event time a detector judges again because rows changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from billingwatch.billing.store import Change
from billingwatch.detection.detector import Detector, Thresholds

AN_INSTANT = timedelta(microseconds=1)  # PostgreSQL's own grain
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BEGINNING, END = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


WEEK = timedelta(weeks=1)
QUARTER = 13 * WEEK


class Span(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A range of event time, both ends included."""

    since: datetime
    until: datetime

    def touches(self, since: datetime, until: datetime) -> bool:
        """Share an instant with another range."""
        return self.since <= until and since <= self.until

    def widened(self, by: timedelta) -> Span:
        """Add the same to both ends."""
        return Span(since=shift(self.since, -by), until=shift(self.until, by))

    def joined(self, other: Span) -> Span:
        """Cover both."""
        return Span(since=min(self.since, other.since), until=max(self.until, other.until))


def shift(instant: datetime, by: timedelta) -> datetime:
    """Add, staying within the years that a datetime knows: a test clock may stand at the end of them."""
    try:
        return instant + by
    except OverflowError:
        return END if by > timedelta(0) else BEGINNING


def pieces(detector: Detector[Any], span: Span, *, as_of: datetime) -> Iterator[Span]:
    """Cut a span into ranges that one statement evaluates: a week of a detector of time, whose grid is fine, or a quarter of a year.

    Beyond `as_of` there is little, so the last piece holds all of it.
    """
    length, gap = (QUARTER, AN_INSTANT) if detector.every is None else (WEEK, detector.every)
    since = span.since
    while (until := shift(since, length)) < min(span.until, as_of):
        yield Span(since=since, until=until)
        since = until + gap
    yield Span(since=since, until=span.until)


def instants(span: Span, every: timedelta) -> Span | None:
    """The first and the last instant of a grid that lie in a span, or None."""
    try:
        since = EPOCH - (EPOCH - span.since) // every * every
        until = EPOCH + (span.until - EPOCH) // every * every
    except OverflowError:
        return None  # the next instant of the grid is outside the years that a datetime knows
    return Span(since=since, until=until) if since <= until else None


def looks_of(
    detector: Detector[Any], changes: Iterable[Change], thresholds: Thresholds, *, judged_until: datetime | None = None
) -> list[Span]:
    """Span the verdicts that the changes can affect; few spans, so far apart that no incident begins in one and goes on in another.

    Of a detector of time only instants up to `judged_until` (None: none yet) have a verdict.
    """
    if detector.every is not None and judged_until is None:
        return []
    spans = []
    for change in changes:
        watch = detector.watches.get(change.table)
        if watch is not None and (change.inserted or not watch.columns.isdisjoint(change.columns)):
            span = Span(since=change.created_at, until=shift(change.created_at, watch.reach(thresholds)))
            if detector.every is not None and judged_until is not None:
                within = instants(Span(since=span.since, until=min(span.until, judged_until)), detector.every)
                spans += [] if within is None else [within]
            else:
                spans.append(span)
    quiet = detector.quiet(thresholds)
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.since <= shift(merged[-1].until, quiet):
            merged[-1] = merged[-1].joined(span)
        else:
            merged.append(span)
    return merged
