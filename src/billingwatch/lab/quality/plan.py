"""Which streams are measured. What the report prints comes from seeds that nobody may tune a detector to; others are there for that."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random

import msgspec

from billingwatch.detection.registry import DETECTORS
from billingwatch.simulate.deliveries import TROUBLES, Trouble, TroubleKind
from billingwatch.simulate.incidents.registry import INCIDENTS
from billingwatch.simulate.incidents.scenes import Incident, Kind
from billingwatch.simulate.objects.shapes import Shape
from billingwatch.simulate.profiles import PROFILES
from billingwatch.simulate.seasons import DAY, SATURDAY

REPORT_SEEDS = range(746_300_000, 746_400_000)  # printed; never look at what these do while you change a detector, or take a new range
TUNING_SEEDS = range(100_000)  # `--tuning`: look at these as long as you like
SEEDS_OF_A_KIND, SEEDS_OF_A_ROUND = 10_000, 100  # each stream is an account of its own
FIRST_DAYS = datetime(2025, 9, 1, tzinfo=UTC)  # the streams of different seeds begin on different days of the four weeks from here
SHAPES: tuple[Shape, ...] = ("current", "legacy")
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
REPEATS = 2  # how often a kind of business with one seed has each incident, with different strengths
LEARNING = 21  # days of a stream without incidents; those of a detector that learns for longer come after that
OUTLOOK = 4  # days in the end without new incidents, so that what began can be found
LASTS_AT_MOST = 8  # days that are left for an incident to show, besides
THINGS = (*INCIDENTS, *TROUBLES)  # all that can go wrong, with the account or on the way
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
    troubles: tuple[Trouble, ...] = ()
    """Incidents of the deliveries."""

    @property
    def quiet(self) -> bool:
        return not self.incidents and not self.troubles

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.seed}"

    @property
    def size(self) -> float:
        """About how many events it has, to say how far a run is."""
        profile = PROFILES[self.kind]
        return self.days * (profile.purchases_per_day * 4 + profile.customers * profile.subscribed * 0.35 + 2)


def plan_streams(
    *, seeds: range, rounds: int, days: int, kinds: Sequence[str], incidents: Sequence[str], repeats: int = REPEATS
) -> list[Stream]:
    """For each kind and round a quiet stream, and as many as it takes to see each incident `repeats` times.

    One that fits only some of the kinds comes more often in those, so that its figures say as much.
    """
    occurrence: defaultdict[str, int] = defaultdict(int)
    streams: list[Stream] = []
    fitted = {name: sum(_kind(name).fits(PROFILES[kind]) for kind in kinds) for name in incidents}
    for kind in kinds:
        place = list(PROFILES).index(kind)
        fitting = [name for name in incidents if _kind(name).fits(PROFILES[kind])]
        for turn in range(rounds):
            parts = [[], *_parts({name: math.ceil(len(kinds) / fitted[name]) for name in fitting}, repeats, place + turn)]
            for part, names in enumerate(parts):
                seed = seeds[place * SEEDS_OF_A_KIND + turn * SEEDS_OF_A_ROUND + part]
                start = FIRST_DAYS + timedelta(days=seed * 11 % 28)
                wishes: list[Incident] = []
                troubles: list[Trouble] = []
                for name, at in _moments(names, start, days, Random(seed)):
                    # Each incident walks through the strengths, each from a beginning of its own: no stream has only faint ones.
                    step = occurrence[name] + incidents.index(name)
                    occurrence[name] += 1
                    strength = STRENGTHS[step % len(STRENGTHS)]
                    if name in TROUBLES:
                        troubles.append(Trouble(name=name, at=at, strength=strength))
                    else:
                        wishes.append(Incident(name=name, at=at, strength=strength))
                shape = SHAPES[(place + turn + part) % len(SHAPES)]
                streams.append(
                    Stream(kind=kind, seed=seed, shape=shape, start=start, days=days, incidents=tuple(wishes), troubles=tuple(troubles))
                )
    return streams


def detector_of(name: str) -> str:
    """The detector that should find it."""
    return _kind(name).detector


def _kind(name: str) -> Kind | TroubleKind:
    return TROUBLES[name] if name in TROUBLES else INCIDENTS[name]


def _parts(incidents: Mapping[str, int], repeats: int, turn: int) -> Iterator[list[str]]:
    """Deal the incidents out to streams, each so many times, in another order at each repeat."""
    names = list(incidents)
    for repeat in range(repeats):
        shift = (turn * 5 + repeat * 7) % max(len(names), 1)
        dealt = [*names[shift:], *names[:shift]]
        count = -(-len(dealt) // CROWD)
        parts = [dealt[number::count] for number in range(count)]
        for place, name in enumerate(dealt):
            for further in range(1, incidents[name]):
                parts[(place + further) % count].append(name)
        yield from map(_apart, parts)


def _apart(names: Sequence[str]) -> list[str]:
    """Put the incidents of each detector as far apart as they can be."""
    by_detector: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        by_detector[detector_of(name)].append(name)
    # The first half of the sequence has every first of two, each in the same place of its half as the second has.
    places = [
        ((number + place / len(by_detector)) / len(alike), name)
        for place, alike in enumerate(by_detector.values())
        for number, name in enumerate(alike)
    ]
    return [name for _, name in sorted(places)]


def _moments(names: Sequence[str], start: datetime, days: int, rng: Random) -> Iterator[tuple[str, datetime]]:
    """Give each incident a time of its own, in working hours, when its detector has learned what is usual and can still find it."""
    for place, name in enumerate(names):
        first = min(max(LEARNING, _learned(name)), days // 2 if days < 2 * LEARNING else days - OUTLOOK)
        end = max(days - OUTLOOK - min(_lasts(name), LASTS_AT_MOST), first + 1)
        working = [day for day in range(first, end) if (start + timedelta(days=day)).weekday() < SATURDAY] or [first]
        day = working[place * len(working) // len(names)]
        yield name, start + timedelta(days=day, hours=rng.choice(WORKING_HOURS), seconds=rng.randrange(3600))


def _learned(name: str) -> int:
    """The first day of a stream on which the detector of an incident need not learn any more."""
    detector = DETECTORS.get(detector_of(name))
    return 0 if detector is None else math.ceil(detector.warm_up(detector.thresholds()) / timedelta(days=1)) + 1


def _lasts(name: str) -> int:
    """How many days an incident takes to show."""
    return 0 if name in TROUBLES else math.ceil(INCIDENTS[name].lasts / DAY)
