"""What an incident is asked for with, works with, and is remembered by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from random import Random

import msgspec

from billingwatch.simulate.objects.shapes import StripeObject
from billingwatch.simulate.world import World


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """One incident wished for."""

    name: str
    at: datetime | None = None
    """None: somewhere in the last part of the stream, on a working day."""
    strength: float = 0.7
    """0: as faint as a person would still call it an incident; 1: nobody could miss it."""


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """The truth about one incident in a stream."""

    incident: str
    """The detector that should find it."""
    variant: str
    strength: float
    description: str
    started_at: int
    """Unix seconds of its first event."""
    ended_at: int
    object_ids: list[str]
    """Charges, invoices, customers … that an anomaly about it would name."""
    event_ids: list[str]


class Scene(msgspec.Struct, kw_only=True):
    """One incident in the making: injectors plan what happens, and note the objects that show it."""

    world: World
    at: int
    strength: float
    rng: Random
    evidence: list[str] = msgspec.field(default_factory=list)
    """Ids of objects whose events are the incident."""
    subjects: list[str] = msgspec.field(default_factory=list)
    """Ids of objects that it is about, besides."""
    description: str = ""

    def between(self, faint: float, loud: float) -> float:
        """Scale by strength."""
        return faint + (loud - faint) * self.strength


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which billing goes wrong."""

    detector: str
    description: str
    inject: Callable[[Scene], None]
    lasts: int
    """Seconds from its beginning until its last important event."""


def label(kind: Kind, variant: str, scene: Scene, by_object: Mapping[str, Sequence[StripeObject]]) -> Label | None:
    """Tell what came of a scene; None if the stream ended before it."""
    until = scene.at + kind.lasts
    events = [sent for object_id in scene.evidence for sent in by_object.get(object_id, ()) if sent["created"] <= until]
    if not events:
        return None
    events.sort(key=lambda sent: int(sent["created"]))
    return Label(
        incident=kind.detector,
        variant=variant,
        strength=scene.strength,
        description=scene.description,
        started_at=events[0]["created"],
        ended_at=events[-1]["created"],
        object_ids=list(dict.fromkeys([*scene.evidence, *scene.subjects])),
        event_ids=[sent["id"] for sent in events],
    )
