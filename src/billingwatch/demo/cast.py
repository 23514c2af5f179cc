"""Who appears in the demo: three businesses, their weeks of history, and what goes wrong in each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from billingwatch.simulate.incidents.scenes import Incident, Label
from billingwatch.simulate.profiles import PROFILES
from billingwatch.simulate.stream import body, simulate

DAYS = 21
LIVE_SPAN = timedelta(hours=3)  # the end of each stream, sent as if it were happening
SEED = 20


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One business: a tenant's name, a profile of `simulate`, and incidents with their age in hours."""

    name: str
    profile: str
    incidents: tuple[tuple[str, float], ...]


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """What Stripe will send for one business, in order; `labels` is the truth about its incidents."""

    part: Part
    history: list[bytes]
    live: list[bytes]
    labels: list[Label]


CAST = (
    Part(
        name="nimbus-saas",
        profile="saas",
        incidents=(("charge_failure_spike", 100), ("negative_invoice", 52), ("double_invoice", 28), ("duplicate_charge", 0.7)),
    ),
    Part(
        name="corner-shop",
        profile="shop",
        incidents=(("duplicate_order", 75), ("fraud_spike", 24 * 7), ("large_refund", 9), ("card_testing", 0.9)),
    ),
    Part(
        name="atlas-market",
        profile="marketplace",
        incidents=(("duplicate_charge", 30), ("currency_mismatch", 20), ("charge_failure_spike", 2.2)),
    ),
)


def write_script(part: Part, *, as_of: datetime) -> Script:
    """Simulate the weeks before `as_of`."""
    incidents = [Incident(name=name, at=as_of - timedelta(hours=age), strength=0.8) for name, age in part.incidents]
    events, labels = simulate(seed=SEED, start=as_of - timedelta(days=DAYS), days=DAYS, profile=PROFILES[part.profile], incidents=incidents)
    turn = (as_of - LIVE_SPAN).timestamp()
    history = [body(event) for event in events if event["created"] < turn]
    live = [body(event) for event in events if event["created"] >= turn]
    return Script(part=part, history=history, live=live, labels=[label for label in labels if not label.natural])


def interleave(bodies: Sequence[Sequence[bytes]]) -> list[tuple[int, bytes]]:
    """Mix several streams evenly, each in its own order: (which stream, body)."""
    placed = [((place + 0.5) / len(stream), which, item) for which, stream in enumerate(bodies) for place, item in enumerate(stream)]
    return [(which, item) for _, which, item in sorted(placed, key=lambda entry: entry[:2])]
