"""Streams of events: simulated, and as files with one event per line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from random import Random
from typing import BinaryIO

import msgspec

from billingwatch.errors import InputInvalid
from billingwatch.simulate.business import open_business, sales_of
from billingwatch.simulate.incidents.registry import INCIDENTS
from billingwatch.simulate.incidents.scenes import Incident, Label, Scene, label, natural_label
from billingwatch.simulate.objects.shapes import StripeObject
from billingwatch.simulate.payments import note_large_refunds
from billingwatch.simulate.profiles import Profile
from billingwatch.simulate.rhythm import Rhythm
from billingwatch.simulate.seasons import DAY, HOUR, SATURDAY, day_start, moment
from billingwatch.simulate.world import World

QUIET_PART = 0.6  # share of a stream that passes before an incident without a date, so that there is a baseline
WORKING_HOURS = (10 * HOUR, 18 * HOUR)

_encoder = msgspec.json.Encoder()


def simulate(
    *,
    seed: int,
    start: datetime,
    days: float,
    profile: Profile,
    incidents: Sequence[str | Incident] = (),
    livemode: bool = True,
    account: str | None = None,
) -> tuple[list[StripeObject], list[Label]]:
    """Give the events of an account in the order in which they occurred, and the truth about it.

    The truth is labels of the incidents, and `natural` ones of what happens in any account and is worth a report all the same: disputes,
    invoices that nobody paid in the end, downgrades, unusually large refunds, cards that are about to end.

    The same arguments give the same bytes. With `account` (acct_…) the events are those of a connected account.
    """
    if start.tzinfo is None:
        raise InputInvalid(reason="the start of a simulation must have a time zone")
    wishes = [Incident(name=wish) if isinstance(wish, str) else wish for wish in incidents]
    _check(wishes)
    begin = int(start.timestamp())
    world = World(seed=seed, start=begin, end=begin + int(days * DAY), profile=profile, livemode=livemode, account=account)
    open_business(world)
    scenes = [_plan(world, wishes, place) for place in range(len(wishes))]
    events = world.run()
    note_large_refunds(world)
    by_object: defaultdict[str, list[StripeObject]] = defaultdict(list)
    for sent in events:
        by_object[sent["data"]["object"]["id"]].append(sent)
    labels = [label(INCIDENTS[wish.name], wish.name, scene, by_object) for wish, scene in zip(wishes, scenes, strict=True)]
    wished = [found for found in labels if found is not None]
    return events, sorted([*wished, *_natural(world, wished, by_object)], key=lambda found: found.started_at)


def rhythm_of(*, seed: int, start: datetime, days: float, profile: Profile) -> Rhythm:
    """Give the true rates of the account that `simulate` makes of the same arguments, while nothing is wrong with it."""
    begin = int(start.timestamp())
    world = World(seed=seed, start=begin, end=begin + int(days * DAY), profile=profile, livemode=True, account=None)
    world.sales = sales_of(world)
    return Rhythm(world)


def body(sent: StripeObject) -> bytes:
    """Give the body that Stripe would post, indented as Stripe does it."""
    return msgspec.json.format(_encoder.encode(sent), indent=2)


def write_events(events: Iterable[StripeObject], file: BinaryIO) -> int:
    """Write one event per line, without the line breaks of a posted body; give their number."""
    return _write_lines(events, file)


def write_labels(labels: Iterable[Label], file: BinaryIO) -> int:
    """Write one label per line; give their number."""
    return _write_lines(labels, file)


def _write_lines(rows: Iterable[StripeObject] | Iterable[Label], file: BinaryIO) -> int:
    count = 0
    for row in rows:
        file.write(_encoder.encode(row) + b"\n")
        count += 1
    return count


def _natural(world: World, wished: Sequence[Label], by_object: Mapping[str, Sequence[StripeObject]]) -> Iterator[Label]:
    """Give what happens in any account, but for what an incident's label tells already."""
    told = {(found.incident, object_id) for found in wished for object_id in found.object_ids}
    for truth in world.truths:
        found = natural_label(truth, world, by_object)
        if found is not None and not any((found.incident, object_id) in told for object_id in truth.evidence):
            yield found


def _check(wishes: Iterable[Incident]) -> None:
    for wish in wishes:
        if wish.name not in INCIDENTS:
            raise InputInvalid(reason=f"there is no incident `{wish.name}`", hint=f"choose from {', '.join(INCIDENTS)}")
        if not 0 <= wish.strength <= 1:
            raise InputInvalid(reason=f"the strength of an incident lies between 0 and 1, not at {wish.strength}")
        if wish.at is not None and wish.at.tzinfo is None:
            raise InputInvalid(reason="the time of an incident must have a time zone")


def _plan(world: World, wishes: Sequence[Incident], place: int) -> Scene:
    wish = wishes[place]
    earlier = sum(other.name == wish.name for other in wishes[:place])
    rng = world.rng("incident", wish.name, earlier)
    at = _when(world, INCIDENTS[wish.name].lasts, place, len(wishes), rng) if wish.at is None else int(wish.at.timestamp())
    scene = Scene(world=world, at=at, strength=wish.strength, rng=rng)
    INCIDENTS[wish.name].inject(scene)
    return scene


def _when(world: World, lasts: int, place: int, places: int, rng: Random) -> int:
    """Give each incident a time of its own in the last part of the stream."""
    first = world.start + int((world.end - world.start) * QUIET_PART)
    last = max(first + HOUR, world.end - lasts)
    at = first + int((last - first) * (place + rng.random()) / places)
    working = day_start(at) + rng.randrange(*WORKING_HOURS)
    nearby = [working + days * DAY for days in (0, 1, 2, -1, -2)]
    return next((day for day in nearby if first <= day <= last and moment(day).weekday() < SATURDAY), at)
