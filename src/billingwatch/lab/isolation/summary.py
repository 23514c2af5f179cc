"""Summary: what the repetitions of a cell say together, who wins, and where that changes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from statistics import median

import msgspec

from billingwatch.lab.choice import Choice
from billingwatch.lab.isolation.cell import Volume
from billingwatch.lab.isolation.dimension import Measure
from billingwatch.lab.isolation.results import Result

EVEN = 1.1  # times, up to which a difference is called none
EVEN_ALONE = 1.5  # the same where one repetition does not tell how far repetitions lie apart
AGREED = 0.75  # share of the repetitions, of which more than that must say who is better


class Value(msgspec.Struct, frozen=True):
    """The figures of the repetitions by their numbers."""

    figures: Mapping[int, float]

    @property
    def median(self) -> float:
        return median(self.figures.values())

    @property
    def low(self) -> float:
        return min(self.figures.values())

    @property
    def high(self) -> float:
        return max(self.figures.values())

    @property
    def times(self) -> int:
        """How many repetitions there are."""
        return len(self.figures)


class Spot(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Where in the grid something was measured, apart from the arm."""

    dimension: str
    measure: str
    volume: Volume
    choice: Choice
    tenants: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Two arms compared: `ratio` is how many times better the better one is, `winner` None when the difference is none."""

    tenants: int
    winner: str | None
    ratio: float
    good: float
    bad: float


Summary = Mapping[Spot, Mapping[str, Value]]
"""For each spot, arm → value."""


def summarize(results: Iterable[Result]) -> Summary:
    """Put repetitions together."""
    found: dict[Spot, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for result in results:
        cell = result.cell
        for measure, figure in result.figures.items():
            spot = Spot(dimension=cell.dimension, measure=measure, volume=cell.volume, choice=cell.choice, tenants=cell.tenants)
            found[spot][cell.arm][cell.repetition] = figure
    return {spot: {arm: Value(figures) for arm, figures in arms.items()} for spot, arms in found.items()}


def compare(measure: Measure, tenants: int, values: Mapping[str, Value], one: str, other: str) -> Verdict | None:
    """Which of two arms is better: by its median, beyond EVEN or EVEN_ALONE, and in more than AGREED of the repetitions. None where one is missing.

    A repetition compares what was measured one soon after the other, so that a machine that was slow for a while was so for both.
    """
    if measure.better is None or one not in values or other not in values:
        return None
    good, bad = (one, other) if _better(measure, values[one].median, values[other].median) else (other, one)
    ratio = _times(values[good].median, values[bad].median)
    pairs = [(figure, values[bad].figures[number]) for number, figure in values[good].figures.items() if number in values[bad].figures]
    agreed = sum(_better(measure, *pair) for pair in pairs) > AGREED * len(pairs)
    winner = good if agreed and ratio > (EVEN if len(pairs) > 1 else EVEN_ALONE) else None
    return Verdict(tenants=tenants, winner=winner, ratio=ratio, good=values[good].median, bad=values[bad].median)


def crossovers(measure: Measure, values: Mapping[int, Mapping[str, Value]], one: str, other: str) -> list[float]:
    """Numbers of tenants at which the better arm becomes the worse.

    Each lies between two measured ones at which different arms win, where the line between them, both axes logarithmic, is even. Measured
    ones at which nobody wins are passed over.
    """
    verdicts = [compare(measure, tenants, arms, one, other) for tenants, arms in sorted(values.items())]
    won = [verdict for verdict in verdicts if verdict is not None and verdict.winner is not None and math.isfinite(verdict.ratio)]
    return [
        math.exp(
            math.log(before.tenants)
            + math.log(after.tenants / before.tenants) * math.log(before.ratio) / (math.log(before.ratio) + math.log(after.ratio))
        )
        for before, after in pairwise(won)
        if before.winner != after.winner
    ]


def _better(measure: Measure, one: float, other: float) -> bool:
    return one < other if measure.better == "less" else one > other


def _times(one: float, other: float) -> float:
    low, high = sorted((abs(one), abs(other)))
    return high / low if low else math.inf if high else 1.0
