"""Which streams are measured. What the report prints comes from seeds that nobody may tune a detector to; others are there for that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from random import Random

import msgspec

from billingwatch.simulate.incidents.registry import INCIDENTS
from billingwatch.simulate.incidents.scenes import Incident
from billingwatch.simulate.objects.shapes import Shape
from billingwatch.simulate.profiles import PROFILES
from billingwatch.simulate.seasons import SATURDAY

REPORT_SEEDS = range(918_273_001, 918_273_101)  # printed; never look at what these do while you change a detector
TUNING_SEEDS = range(1, 101)  # `--tuning`: look at these as long as you like
FIRST_DAYS = datetime(2025, 9, 1, tzinfo=UTC)  # the streams of different seeds begin on different days of the four weeks from here
SHAPES: tuple[Shape, ...] = ("current", "legacy")
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
REPEATS = 2  # how often a kind of business with one seed has each incident, with different strengths
LEARNING = 23  # days of a stream without incidents: detectors of time want three weeks of history
OUTLOOK = 4  # days in the end without new incidents, so that what began can be found
CROWD = 18  # incidents of one stream
WORKING_HOURS = range(9, 17)  # UTC


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """One simulated account; without incidents it is quiet."""

    kind: str
    seed: int
    shape: Shape
    start: datetime
    days: int
    incidents: tuple[Incident, ...] = ()
    part: int = 0
    """Tells streams of the same kind and seed apart; 0 is the quiet one."""

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.seed}-{self.part}"

    @property
    def size(self) -> float:
        """About how many events it has, to say how far a run is."""
        profile = PROFILES[self.kind]
        return self.days * (profile.purchases_per_day * 4 + profile.customers * profile.subscribed * 0.35 + 2)


def plan_streams(
    *, seeds: Sequence[int], days: int, kinds: Sequence[str], incidents: Sequence[str], repeats: int = REPEATS
) -> list[Stream]:
    """For each kind and seed a quiet stream, and as many as it takes to see each incident `repeats` times."""
    occurrence: defaultdict[str, int] = defaultdict(int)
    streams: list[Stream] = []
    for place, kind in enumerate(kinds):
        for turn, seed in enumerate(seeds):
            quiet = Stream(
                kind=kind,
                seed=seed,
                shape=SHAPES[(place + turn) % len(SHAPES)],
                start=FIRST_DAYS + timedelta(days=seed * 11 % 28),
                days=days,
            )
            streams.append(quiet)
            for part, names in enumerate(_parts(incidents, repeats, place + turn), start=1):
                wishes = []
                for name, at in zip(names, _moments(quiet, len(names), Random(f"{kind}/{seed}/{part}")), strict=True):
                    # Each incident walks through the strengths, each from a beginning of its own: no stream has only faint ones.
                    step = occurrence[name] + incidents.index(name)
                    occurrence[name] += 1
                    wishes.append(Incident(name=name, at=at, strength=STRENGTHS[step % len(STRENGTHS)]))
                streams.append(msgspec.structs.replace(quiet, part=part, incidents=tuple(wishes)))
    return streams


def _parts(incidents: Sequence[str], repeats: int, turn: int) -> Iterator[list[str]]:
    """Deal the incidents out to streams, in another order each time."""
    for repeat in range(repeats):
        shift = (turn * 5 + repeat * 7) % max(len(incidents), 1)
        dealt = [*incidents[shift:], *incidents[:shift]]
        count = -(-len(dealt) // CROWD)
        for number in range(count):
            yield _apart(dealt[number::count])


def _apart(names: Sequence[str]) -> list[str]:
    """Put the incidents of each detector as far apart as they can be."""
    by_detector: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        by_detector[INCIDENTS[name].detector].append(name)
    # The first half of the sequence has every first of two, each in the same place of its half as the second has.
    places = [
        ((number + place / len(by_detector)) / len(alike), name)
        for place, alike in enumerate(by_detector.values())
        for number, name in enumerate(alike)
    ]
    return [name for _, name in sorted(places)]


def _moments(stream: Stream, count: int, rng: Random) -> list[datetime]:
    """Give each incident a time of its own, in working hours, spread over the time in which there may be incidents."""
    learning = min(LEARNING, stream.days // 2)
    days = [stream.start + timedelta(days=day) for day in range(learning, max(stream.days - OUTLOOK, learning + 1))]
    working = [day for day in days if day.weekday() < SATURDAY] or days
    moments = []
    for place in range(count):
        at = working[place * len(working) // count] + timedelta(hours=rng.choice(WORKING_HOURS), seconds=rng.randrange(3600))
        moments.append(at)
    return moments
