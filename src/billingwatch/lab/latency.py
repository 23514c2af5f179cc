"""Latencies in milliseconds, by nearest rank: every figure is one that was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds."""

    p50: float
    p99: float
    max: float


def summarize(seconds: Iterable[float]) -> Latency | None:
    """Latencies given in seconds; None when there are none."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    return Latency(p50=_ms(percentile(ordered, 0.50)), p99=_ms(percentile(ordered, 0.99)), max=_ms(ordered[-1]))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the sorted values do not exceed."""
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
