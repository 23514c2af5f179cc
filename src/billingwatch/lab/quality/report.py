"""The whole run: streams over processes, one server for all of them, and what came out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from billingwatch.detection.registry import DETECTORS
from billingwatch.lab.machine import Machine, cores, this_machine
from billingwatch.lab.quality.measure import Measured
from billingwatch.lab.quality.plan import REPEATS, REPORT_SEEDS, TUNING_SEEDS, Stream, plan_streams
from billingwatch.lab.quality.processes import measure_all
from billingwatch.lab.quality.rules import RULED
from billingwatch.lab.quality.scores import Matched, Quiet, Score, Variant, matched, quiet_by_kind, score, together, variants
from billingwatch.lab.quality.truth import Alarm, plain_slack_of, slack_of
from billingwatch.lab.stage import open_stage
from billingwatch.settings import Settings

RECALL_AIM = PRECISION_AIM = 0.95
QUIET_AIM = 1.0  # false alarms per tenant and month, of all detectors together


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    rounds: int
    """Quiet accounts of each kind of business; those with incidents come on top."""
    weeks: int
    kinds: tuple[str, ...]
    incidents: tuple[str, ...]
    tuning: bool = False
    repeats: int = REPEATS
    processes: int = 0
    """0: one for each core."""

    def plan(self) -> list[Stream]:
        seeds = TUNING_SEEDS if self.tuning else REPORT_SEEDS
        return plan_streams(
            seeds=seeds, rounds=self.rounds, days=self.weeks * 7, kinds=self.kinds, incidents=self.incidents, repeats=self.repeats
        )


class Missed(msgspec.Struct, frozen=True, kw_only=True):
    """An incident that was not found."""

    stream: str
    detector: str
    variant: str
    strength: float
    natural: bool
    started_at: float
    description: str
    alarms: int
    """About it, but taken back or too late."""


class FalseAlarm(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm about nothing, or about what another detector should find."""

    stream: str
    quiet: bool
    verdict: str
    detector: str
    severity: str
    subject: str
    opened_at: float
    detected_at: float
    retracted: bool
    summary: str


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two that are compared."""

    scores: list[Score]
    variants: list[Variant]
    quiet: list[Quiet]
    quiet_together: Quiet | None
    missed: list[Missed]
    wrong: list[FalseAlarm]


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """A stream, and what it cost: milliseconds per delivery go to simulation, recording, visits and plain rules."""

    stream: str
    shape: str
    start: str
    days: int
    incidents: int
    events: int
    deliveries: int
    visits: int
    seconds: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. `ours` is the product, `plain` the rules with fixed numbers."""

    machine: Machine
    wish: Wish
    seeds: list[int]
    seconds: float
    events: int
    dead: int
    tenant_months: float
    ours: Side
    plain: Side
    streams: list[Ran]


def detection_report(settings: Settings, wish: Wish, on_progress: Callable[[float, float], None] = lambda _done, _size: None) -> Report:
    """Run the wish on a database of its own; `on_progress` gets how much is done of how much."""
    began = time.monotonic()
    streams = wish.plan()
    # The longest first, so that no process is left alone with it in the end.
    order = sorted(streams, key=lambda stream: -stream.size)
    # Each stream's tenant is dropped with its schema.
    own = msgspec.structs.replace(settings, isolation="schema")
    with open_stage(own, durable=False) as stage:
        measured = measure_all(order, stage.dsn, stage.settings, wish.processes or cores(), on_progress)
    place = {stream.name: number for number, stream in enumerate(streams)}
    return summarize(wish, sorted(measured, key=lambda each: place[each.stream.name]), seconds=round(time.monotonic() - began, 1))


def summarize(wish: Wish, measured: Sequence[Measured], *, seconds: float) -> Report:
    """Make the report of measured streams; a pure function."""
    ours = matched(measured, lambda stream: stream.ours, slack_of)
    plain = matched(measured, lambda stream: [alarm for alarm in stream.plain if alarm.detector in DETECTORS], plain_slack_of)
    return Report(
        machine=this_machine(),
        wish=wish,
        seeds=sorted({each.stream.seed for each in measured}),
        seconds=seconds,
        events=sum(each.cost.events for each in measured),
        dead=sum(each.dead for each in measured),
        tenant_months=round(sum(stream.months for stream in ours), 1),
        ours=_side(ours, list(DETECTORS)),
        plain=_side(plain, [name for name in DETECTORS if name in RULED]),
        streams=[_ran(each) for each in measured],
    )


def _side(streams: Sequence[Matched], detectors: Sequence[str]) -> Side:
    quiet = quiet_by_kind(streams, frozenset(detectors))
    return Side(
        scores=[score(detector, streams) for detector in detectors],
        variants=[variant for variant in variants(streams) if variant.detector in detectors],
        quiet=quiet,
        quiet_together=together(quiet),
        missed=[missed for stream in streams for missed in _missed(stream) if missed.detector in detectors],
        wrong=[wrong for stream in streams for wrong in _wrong(stream)],
    )


def _missed(stream: Matched) -> Iterator[Missed]:
    for truth, alarms in stream.missed():
        yield Missed(
            stream=stream.measured.stream.name,
            detector=truth.detector,
            variant=truth.variant,
            strength=truth.strength,
            natural=truth.natural,
            started_at=truth.started_at,
            description=truth.description,
            alarms=alarms,
        )


def _wrong(stream: Matched) -> Iterator[FalseAlarm]:
    for alarm, verdict in zip(stream.alarms, stream.matches.verdicts, strict=True):
        if verdict != "true":
            yield _false_alarm(stream, alarm, verdict)


def _false_alarm(stream: Matched, alarm: Alarm, verdict: str) -> FalseAlarm:
    return FalseAlarm(
        stream=stream.measured.stream.name,
        quiet=stream.quiet,
        verdict=verdict,
        detector=alarm.detector,
        severity=alarm.severity,
        subject=alarm.subject,
        opened_at=alarm.opened_at,
        detected_at=alarm.detected_at,
        retracted=alarm.retracted,
        summary=alarm.summary,
    )


def _ran(measured: Measured) -> Ran:
    stream, cost = measured.stream, measured.cost
    return Ran(
        stream=stream.name,
        shape=stream.shape,
        start=stream.start.date().isoformat(),
        days=stream.days,
        incidents=len(stream.incidents) + len(stream.troubles),
        events=cost.events,
        deliveries=cost.deliveries,
        visits=cost.visits,
        seconds=round(cost.simulating + cost.recording + cost.visiting + cost.ruling, 1),
    )
