"""Which of two snapshots of one object is newer: `version` is one text, and the greater one wins, whichever arrives first.

Stripe delivers in any order and dates events in whole seconds, so time alone does not decide. In this order do: how final the
snapshot is, when its event occurred, how far the object had come by then, and, when all that is equal, the event's id.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

SECONDS_MAX = 10**12 - 1
PROGRESS_MAX = 10**16 - 1
STATES_MAX = 100


class Stage(IntEnum):
    """How final a snapshot is. A later stage beats an earlier one whatever their times."""

    HEARD_OF = 0
    """Only named by another object; no snapshot of it was seen."""
    LIVE = 1
    FINAL = 2
    """A state that Stripe never leaves."""
    ESCALATED = 3
    """A dispute, which may have been a closed inquiry before and never becomes one again."""
    DECIDED = 4


def version(*, stage: Stage, occurred_at: int, rank: int, event_id: str) -> str:
    """Order snapshots of one object bytewise. `occurred_at` is in unix seconds, `rank` comes from `rank()`."""
    return f"{stage:d}{_clamp(occurred_at, SECONDS_MAX):012d}{rank:019d}{event_id}"


def rank(*, first: bool, state: int, progress: int = 0) -> int:
    """Order the snapshots of one second: the one taken at creation, then by state, then by whatever only ever grows."""
    return ((0 if first else STATES_MAX) + _clamp(state, STATES_MAX - 1)) * (PROGRESS_MAX + 1) + _clamp(progress, PROGRESS_MAX)


def place(state: str | None, states: Sequence[str]) -> int:
    """Find how far along `states` a state is; one that Stripe has added since counts as the first."""
    return states.index(state) if state in states else 0


def _clamp(value: int, limit: int) -> int:
    return min(max(value, 0), limit)
