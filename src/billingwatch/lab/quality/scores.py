"""Arithmetic over measured streams: recall, precision, false alarms, delays, and the curve of recall over strength."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import msgspec

from billingwatch.lab.quality.measure import Measured
from billingwatch.lab.quality.truth import Alarm, Matches, Slack, Truth, match

MONTH = 365.25 / 12  # days


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """So many of so many."""

    part: int
    whole: int

    @property
    def value(self) -> float | None:
        return self.part / self.whole if self.whole else None


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """Recall at one strength."""

    strength: float
    found: Share


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """How one detector, or one plain rule, did."""

    detector: str
    recall: Share
    """Incidents found in time to tell somebody, and not taken back."""
    precision: Share
    """Alarms that were about an incident, of those that were about one or about nothing."""
    repeats: int
    """Alarms about an incident beyond the first of each."""
    collateral: int
    """Alarms about another detector's incident, or about what is arguable; they count neither way."""
    retracted: int
    """False alarms that were taken back later; they count as false."""
    historical: int
    """Found when it was too late to tell anybody; they count neither way."""
    quiet: int
    """False alarms on the streams without incidents."""
    quiet_per_month: float | None
    delay_median: float | None
    """Seconds from the arrival of the incident's first event to the first alarm about it."""
    delay_p90: float | None
    curve: list[Point]
    """By strength; what chance made is not in it."""


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """How often one kind of incident was found."""

    detector: str
    variant: str
    found: Share
    curve: list[Point]


class Quiet(msgspec.Struct, frozen=True, kw_only=True):
    """False alarms of all detectors together on streams without incidents."""

    kind: str
    months: float
    false_alarms: int
    loud: int
    """Those of them with a severity above `info`."""

    @property
    def per_month(self) -> float:
        return self.false_alarms / self.months


class Matched(msgspec.Struct, frozen=True, kw_only=True):
    """A measured stream, and what belongs together in it."""

    measured: Measured
    alarms: list[Alarm]
    matches: Matches

    @property
    def quiet(self) -> bool:
        return self.measured.stream.quiet

    @property
    def months(self) -> float:
        return self.measured.stream.days / MONTH

    def false_alarms(self) -> list[Alarm]:
        return [alarm for alarm, verdict in zip(self.alarms, self.matches.verdicts, strict=True) if verdict == "false"]

    def found(self) -> list[tuple[Truth, list[Alarm]]]:
        """Each truth that is to be found, with the alarms that found it."""
        return [
            (truth, [alarm for alarm in by if not alarm.retracted])
            for truth, by in zip(self.measured.truths, self.matches.found_by, strict=True)
            if not truth.arguable
        ]

    def missed(self) -> list[tuple[Truth, int]]:
        """Each truth that was not found, with the number of alarms about it that were taken back."""
        return [
            (truth, len(by))
            for truth, by in zip(self.measured.truths, self.matches.found_by, strict=True)
            if not truth.arguable and all(alarm.retracted for alarm in by)
        ]


def matched(measured: Iterable[Measured], alarms_of: Callable[[Measured], list[Alarm]], slack: Slack) -> list[Matched]:
    """Match each stream's alarms with its truths."""
    return [
        Matched(measured=stream, alarms=alarms_of(stream), matches=match(alarms_of(stream), stream.truths, slack)) for stream in measured
    ]


def score(detector: str, streams: Sequence[Matched]) -> Score:
    """Put the streams together for one detector."""
    found = [pair for stream in streams for pair in stream.found() if pair[0].detector == detector]
    verdicts = Counter(
        verdict
        for stream in streams
        for alarm, verdict in zip(stream.alarms, stream.matches.verdicts, strict=True)
        if alarm.detector == detector
    )
    false = [(stream, alarm) for stream in streams for alarm in stream.false_alarms() if alarm.detector == detector]
    quiet_months = sum(stream.months for stream in streams if stream.quiet)
    quiet = sum(stream.quiet for stream, _ in false)
    delays = sorted(max(0.0, min(alarm.detected_at for alarm in by) - truth.arrived_at) for truth, by in found if by)
    return Score(
        detector=detector,
        recall=Share(part=sum(bool(by) for _, by in found), whole=len(found)),
        precision=Share(part=verdicts["true"], whole=verdicts["true"] + verdicts["false"]),
        repeats=sum(max(len(by) - 1, 0) for _, by in found),
        collateral=verdicts["collateral"],
        retracted=sum(alarm.retracted for _, alarm in false),
        historical=verdicts["historical"],
        quiet=quiet,
        quiet_per_month=quiet / quiet_months if quiet_months else None,
        delay_median=percentile(delays, 0.5),
        delay_p90=percentile(delays, 0.9),
        curve=_curve(found),
    )


def variants(streams: Sequence[Matched]) -> list[Variant]:
    """Recall per kind of incident; what chance made has kinds of its own."""
    by_variant: defaultdict[tuple[str, str], list[tuple[Truth, list[Alarm]]]] = defaultdict(list)
    for stream in streams:
        for truth, by in stream.found():
            by_variant[truth.detector, truth.variant].append((truth, by))
    return [
        Variant(
            detector=detector, variant=variant, found=Share(part=sum(bool(by) for _, by in found), whole=len(found)), curve=_curve(found)
        )
        for (detector, variant), found in sorted(by_variant.items())
    ]


def quiet_by_kind(streams: Sequence[Matched], detectors: frozenset[str]) -> list[Quiet]:
    """False alarms of these detectors together, per kind of business, on streams without incidents."""
    kinds: defaultdict[str, list[Matched]] = defaultdict(list)
    for stream in streams:
        if stream.quiet:
            kinds[stream.measured.stream.kind].append(stream)
    rows = []
    for kind, alike in kinds.items():
        false = [alarm for stream in alike for alarm in stream.false_alarms() if alarm.detector in detectors]
        months = sum(stream.months for stream in alike)
        rows.append(Quiet(kind=kind, months=months, false_alarms=len(false), loud=sum(alarm.severity != "info" for alarm in false)))
    return rows


def together(rows: Sequence[Quiet]) -> Quiet | None:
    """All kinds of business as one; None without a quiet stream."""
    if not rows:
        return None
    return Quiet(
        kind="all",
        months=sum(row.months for row in rows),
        false_alarms=sum(row.false_alarms for row in rows),
        loud=sum(row.loud for row in rows),
    )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of them does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _curve(found: Iterable[tuple[Truth, list[Alarm]]]) -> list[Point]:
    by_strength: defaultdict[float, list[bool]] = defaultdict(list)
    for truth, by in found:
        if not truth.natural:
            by_strength[truth.strength].append(bool(by))
    return [Point(strength=strength, found=Share(part=sum(hits), whole=len(hits))) for strength, hits in sorted(by_strength.items())]
