"""Deliveries: when each attempt of Stripe to post an event arrives, what goes wrong on the way, and the truth about that."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from random import Random
from types import MappingProxyType

import msgspec

from billingwatch.errors import InputInvalid
from billingwatch.simulate.incidents.scenes import Label
from billingwatch.simulate.objects.shapes import StripeObject
from billingwatch.simulate.seasons import DAY, HOUR, arrivals

PROMPT = 4  # seconds within which Stripe delivers what it can deliver
RETRY_AFTER = (600, 3 * HOUR)  # seconds until what could not be delivered, or was not answered in time, comes again
GIVES_UP = 3 * DAY  # after so long Stripe tries no more
RETRIES = (60, 5 * 60, 30 * 60, 2 * HOUR, 5 * HOUR, 10 * HOUR)  # seconds between attempts; the last again and again
JITTER = (0.8, 1.2)
RESTARTS_PER_WEEK = 1.0  # of a receiver; each loses what comes meanwhile to a retry
RESTART_LASTS = (20, 150)  # seconds


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One POST that arrives."""

    at: int
    """Unix seconds of its arrival."""
    event: StripeObject
    signed_at: int
    """Unix seconds of Stripe's signature; what lies between it and the arrival is the network's."""
    attempt: int = 1
    """Which attempt it is; those before it met no answer, or none in time."""


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is to go wrong with deliveries."""

    name: str
    at: datetime
    strength: float = 0.7
    """0: as faint as a person would still call it an incident; 1: nobody could miss it."""


class Plan(msgspec.Struct, kw_only=True):
    """A trouble in the making: when it is, and what it has done."""

    trouble: Trouble
    start: int
    end: int
    rng: Random
    delay: int = 0
    """Seconds."""
    times: int = 0
    """How often an event comes again."""
    touched: list[str] = msgspec.field(default_factory=list)
    """Ids of events."""
    last: int = 0
    """Unix seconds of the last arrival that it has to do with."""

    def between(self, faint: float, loud: float) -> float:
        """Scale by strength."""
        return faint + (loud - faint) * self.trouble.strength


class TroubleKind(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which deliveries go wrong."""

    detector: str
    description: str
    plan: Callable[[Plan, Sequence[int]], None]
    """Decides how bad it is, given the instants of all events."""
    also: tuple[str, ...] = ()


def deliver(
    events: Iterable[StripeObject], *, seed: int, late: float = 0.01, doubled: float = 0.005, troubles: Sequence[Trouble] = ()
) -> list[Delivery]:
    """Deliver as Stripe does: within seconds but in no order, a share of it late, a share of it twice; in order of arrival.

    An event that meets no answer comes again, later and later, for three days.
    """
    return deliver_and_tell(events, seed=seed, late=late, doubled=doubled, troubles=troubles)[0]


def deliver_and_tell(
    events: Iterable[StripeObject], *, seed: int, late: float = 0.01, doubled: float = 0.005, troubles: Sequence[Trouble] = ()
) -> tuple[list[Delivery], list[Label]]:
    """Deliver as Stripe does, and give the truth about the troubles."""
    sent_events = list(events)
    created = sorted(sent["created"] for sent in sent_events)
    plans = [_plan(trouble, place, seed, created) for place, trouble in enumerate(troubles)]
    away = _restarts(created, seed) + [(plan.start, plan.end, plan) for plan in plans if plan.trouble.name == "webhook_silence"]
    deliveries: list[Delivery] = []
    for sent in sent_events:
        # Hashed by event: a trouble must not disturb the other deliveries.
        rng = Random(f"{seed}/deliver/{sent['id']}")
        deliveries += _deliveries_of(sent, rng, late, doubled, plans, away)
    labels = [_label(plan) for plan in plans if plan.touched]
    return sorted(deliveries, key=lambda delivery: delivery.at), sorted(labels, key=lambda label: label.started_at)


def _deliveries_of(
    sent: StripeObject, rng: Random, late: float, doubled: float, plans: Sequence[Plan], away: Sequence[tuple[int, int, Plan | None]]
) -> list[Delivery]:
    created = sent["created"]
    signed_at, network, attempt = created + rng.randrange(PROMPT), 1, 1
    chance, again, wait, wait_again = rng.random(), rng.random(), rng.randrange(*RETRY_AFTER), rng.randrange(*RETRY_AFTER)
    if chance < late:
        signed_at, attempt = signed_at + wait, 2
    for plan in plans:
        if plan.start <= created < plan.end and plan.delay:
            slow = int(plan.delay * plan.rng.uniform(0.7, 1.3))
            if plan.trouble.name == "webhook_lag":
                signed_at += slow
            else:
                network += min(slow, TOLERATED)
            _touch(plan, sent, signed_at + network)
    first = signed_at + network
    arrived = _try_until_answered(sent, first, attempt, rng, away)
    if arrived is None:
        return []
    at, attempt = arrived
    found = [Delivery(at=at, event=sent, signed_at=at - network, attempt=attempt)]
    if again < doubled:
        found.append(Delivery(at=at + wait_again, event=sent, signed_at=at + wait_again - 1, attempt=attempt + 1))
    for plan in plans:
        if plan.times and plan.start <= created < plan.end and len(plan.touched) < plan.delay_free_events:
            pass
    return found
