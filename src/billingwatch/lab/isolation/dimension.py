"""What a dimension is: a question about tenants kept apart, how it is measured, and the figures that answer it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from billingwatch.lab.choice import Choice
from billingwatch.lab.isolation.cell import Volume
from billingwatch.lab.isolation.world import Task

Figures = Mapping[str, float]


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of a dimension. `better` is None for one that only explains others."""

    key: str
    title: str
    unit: str
    better: Literal["less", "more"] | None = "less"
    headline: bool = False
    """Whether the decision table and the plots show it."""


class Dimension(msgspec.Struct, frozen=True, kw_only=True):
    """One question."""

    key: str
    title: str
    method: str
    """How it is measured, for the report: a paragraph."""
    measures: tuple[Measure, ...]
    measure: Callable[[Task], Figures]
    """Blocks. Leaves the world as it was, or says in `method` what it leaves."""
    arms: tuple[str, ...] = ("schema", "row", "partitioned")
    choices: tuple[Choice, ...] = ("uniform",)
    volumes: tuple[Volume, ...] = ("each",)
    fewest: int = 1
    """Number of tenants from which it is a question; 2 where one tenant does something to the others."""
    once_from: int = 1_000_000
    """Number of tenants from which one repetition is enough, because it works through all of them, and its figures are sums."""
