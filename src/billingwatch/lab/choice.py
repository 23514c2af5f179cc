"""Which tenant sends the next event."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from random import Random
from typing import Literal

Choice = Literal["uniform", "zipf", "sweep"]

ZIPF_EXPONENT = 1.1  # of 1,000 tenants the busiest sends 18 % of all events, the upper hundred 77 %
_DRAWN_AT_ONCE = 1024


def choose(choice: Choice, count: int, *, seed: int) -> Iterator[int]:
    """Give indexes below `count`: `sweep` each once, the others without end."""
    rng = Random(f"{seed}/choice")
    tenants = list(range(count))
    rng.shuffle(tenants)  # so that rank says nothing about age, and neighbours do not share a lane
    if choice == "sweep":
        yield from tenants
        return
    cumulative = list(accumulate(zipf_weights(count, ZIPF_EXPONENT if choice == "zipf" else 0.0)))
    while True:
        yield from rng.choices(tenants, cum_weights=cumulative, k=_DRAWN_AT_ONCE)


def zipf_weights(count: int, exponent: float) -> list[float]:
    """The weight of each rank, the heaviest first; with exponent 0 all are the same."""
    return [1 / rank**exponent for rank in range(1, count + 1)]
