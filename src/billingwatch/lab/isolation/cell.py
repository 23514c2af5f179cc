"""Cells: what one measurement is about, and how much of everything there is."""

from __future__ import annotations

from typing import Literal

import msgspec

from billingwatch.lab.choice import Choice

Volume = Literal["each", "total"]
"""`each`: every tenant has the same rows, whatever their number; `total`: as many rows in all, shared out over the tenants."""


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured."""

    tenants: tuple[int, ...]
    repetitions: int
    seconds: float
    """How long a phase of load takes; dimensions without load measure for a part of it."""
    rows_each: int
    rows_total: int
    rows_huge: int
    """Charges of the tenant that the analysts call huge."""


FULL = Scale(tenants=(1, 10, 100, 1000, 10_000), repetitions=3, seconds=3, rows_each=100, rows_total=200_000, rows_huge=200_000)
QUICK = Scale(tenants=(10, 100), repetitions=2, seconds=0.8, rows_each=50, rows_total=10_000, rows_huge=10_000)


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement."""

    dimension: str
    arm: str
    tenants: int
    choice: Choice
    volume: Volume
    repetition: int

    @property
    def key(self) -> str:
        """A name that is its own in the run, and good for a file."""
        return f"{self.dimension}-{self.arm}-{self.tenants}-{self.choice}-{self.volume}-{self.repetition}"

    @property
    def seed(self) -> int:
        """The same for every arm, so that all are asked the same."""
        return self.repetition * 1_000_003 + self.tenants
