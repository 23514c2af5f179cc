"""What an incident is asked for with, works with, and is remembered by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from random import Random

import msgspec

from billingwatch.simulate.objects.shapes import StripeObject
from billingwatch.simulate.profiles import Profile
from billingwatch.simulate.seasons import DAY
from billingwatch.simulate.world import Truth, World


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
    """Unix seconds: its first event, or for what shows in time (nothing comes, a card ends) when it begins to be so."""
    ended_at: int
    object_ids: list[str]
    """Charges, invoices, customers … that an anomaly about it would name."""
    event_ids: list[str]
    also: list[str] = []
    """Other detectors that are right to report it, too."""
    natural: bool = False
    """Whether it is part of any account's life rather than an incident that was wished for."""
    arguable: bool = False
    """Whether it is as right to be silent about it as to report it."""


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
    since: int | None = None
    """Earlier events of the evidence are its history and not the incident."""
    started_at: int | None = None
    """Unix seconds; None: with the first event."""
    ended_at: int | None = None
    arguable: bool = False

    def between(self, faint: float, loud: float) -> float:
        """Scale by strength."""
        return faint + (loud - faint) * self.strength


def any_account(_: Profile) -> bool:
    """For what shows wherever it goes wrong."""
    return True


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which billing goes wrong."""

    detector: str
    description: str
    inject: Callable[[Scene], None]
    lasts: int
    """Seconds from its beginning until its last important event."""
    also: tuple[str, ...] = ()
    """Other detectors that are right to report it, too."""
    fits: Callable[[Profile], bool] = any_account
    """Whether the account is of a kind in which somebody would notice."""
    takes: bool = False
    """Whether it keeps ordinary events from happening, besides those that it adds."""


def label(kind: Kind, variant: str, scene: Scene, by_object: Mapping[str, Sequence[StripeObject]]) -> Label | None:
    """Tell what came of a scene; None if the stream ended before it."""
    world = scene.world
    until = max(scene.at + kind.lasts, scene.ended_at or 0)
    events = _events(scene.evidence, by_object, scene.since or world.start, until)
    started_at = scene.started_at if scene.started_at is not None else events[0]["created"] if events else world.end
    ended_at = scene.ended_at if scene.ended_at is not None else events[-1]["created"] if events else started_at
    if started_at >= world.end:
        return None
    return Label(
        incident=kind.detector,
        variant=variant,
        strength=scene.strength,
        description=scene.description,
        started_at=started_at,
        ended_at=min(ended_at, world.end - 1),
        object_ids=list(dict.fromkeys([*scene.evidence, *scene.subjects])),
        event_ids=[sent["id"] for sent in events],
        also=list(kind.also),
        arguable=scene.arguable,
    )


def natural_label(truth: Truth, world: World, by_object: Mapping[str, Sequence[StripeObject]]) -> Label | None:
    """Tell of what happens in any account; None if it lies outside the stream, or nothing in the stream shows it, or not until midnight."""
    events = _events(truth.evidence, by_object, world.start, truth.ended_at or world.end)
    shown = [_events(evidence, by_object, world.start, world.end) for evidence in truth.shown_by]
    if not events or not all(shown) or not world.start <= truth.started_at < world.end:
        return None
    started_at = max(truth.started_at, *(first[0]["created"] for first in shown)) if shown else truth.started_at
    if truth.ended_at is not None and truth.ended_at // DAY <= started_at // DAY and shown:
        return None
    return Label(
        incident=truth.detector,
        variant="natural",
        strength=1.0,
        description=truth.description,
        started_at=started_at,
        ended_at=min(max(started_at, truth.ended_at or events[-1]["created"]), world.end - 1),
        object_ids=list(dict.fromkeys([*truth.evidence, *truth.subjects])),
        event_ids=[sent["id"] for sent in events],
        natural=True,
        arguable=truth.arguable,
    )


def _events(evidence: Sequence[str], by_object: Mapping[str, Sequence[StripeObject]], since: int, until: int) -> list[StripeObject]:
    events = [sent for object_id in dict.fromkeys(evidence) for sent in by_object.get(object_id, ()) if since <= sent["created"] <= until]
    return sorted(events, key=lambda sent: int(sent["created"]))
