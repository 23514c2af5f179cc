"""Summary: what the repetitions of a cell say together, who wins, and where that changes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median

import msgspec

from billingwatch.lab.choice import Choice
from billingwatch.lab.isolation.cell import Volume
from billingwatch.lab.isolation.dimension import Measure
from billingwatch.lab.isolation.results import Result

EVEN = 1.1  # times, up to which a difference is called none
EVEN_ALONE = 1.5  # the same where one repetition does not tell how far repetitions lie apart


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """The median of the repetitions, the least and the greatest of them, and how many they were."""

    median: float
    low: float
    high: float
    times: int


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
    found: dict[Spot, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        cell = result.cell
        for measure, figure in result.figures.items():
            spot = Spot(dimension=cell.dimension, measure=measure, volume=cell.volume, choice=cell.choice, tenants=cell.tenants)
            found[spot][cell.arm].append(figure)
    return {spot: {arm: _value(figures) for arm, figures in arms.items()} for spot, arms in found.items()}


def _value(figures: Sequence[float]) -> Value:
    return Value(median=median(figures), low=min(figures), high=max(figures), times=len(figures))


def compare(measure: Measure, tenants: int, values: Mapping[str, Value], one: str, other: str) -> Verdict | None:
    """Which of two arms is better: beyond EVEN or EVEN_ALONE, and with no repetition of the one as good as any of the other. None where one is missing."""
    if measure.better is None or one not in values or other not in values:
        return None
    good, bad = (one, other) if _better(measure, values[one].median, values[other].median) else (other, one)
    ratio = _times(values[good].median, values[bad].median)
    apart = values[good].high < values[bad].low if measure.better == "less" else values[good].low > values[bad].high
    alone = min(values[good].times, values[bad].times) == 1
    winner = good if apart and ratio > (EVEN_ALONE if alone else EVEN) else None
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
