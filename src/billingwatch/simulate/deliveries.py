"""Deliveries: when Stripe's attempts to post an event arrive, what goes wrong on the way, and the truth about that."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from random import Random
from types import MappingProxyType

import msgspec

from billingwatch.errors import InputInvalid
from billingwatch.simulate.incidents.scenes import Label, any_account
from billingwatch.simulate.objects.shapes import StripeObject
from billingwatch.simulate.profiles import Profile
from billingwatch.simulate.rhythm import Rhythm
from billingwatch.simulate.seasons import DAY, HOUR, arrivals

PROMPT = 3  # seconds within which Stripe signs and sends what it can deliver
NETWORK = 1  # seconds from a signature to the arrival
RETRY_AFTER = (600, 3 * HOUR)  # seconds until what was not answered, or answered too late, comes again
RETRIES = (60, 5 * 60, 30 * 60, 2 * HOUR, 5 * HOUR, 10 * HOUR)  # seconds between attempts while nobody answers; then the last again
JITTER = (0.8, 1.2)
GIVES_UP = 3 * DAY  # after so long Stripe tries no more, and no trouble lasts for longer
RESTARTS_PER_WEEK = 2.0  # of a receiver; what comes meanwhile comes again
RESTART_LASTS = (20, 300)  # seconds

SLOW_LASTS = (HOUR, 5 * HOUR)
SLOW_HAPPENINGS = (5, 10)  # so many times at least something that happened comes late; on quiet accounts it takes longer
STRIPE_SLOW = (8 * 60, 2 * HOUR)  # seconds
NETWORK_SLOW = (60, 240)  # seconds; beyond five minutes a receiver refuses the signature
UNEVEN = (0.7, 1.2)
WAVE = 4  # times the delay, in which it grows and shrinks once
MISSED = (18, 40)  # times at which something happened and nothing was heard; chance alone makes silences of up to eleven usual ones
MISSED_LASTS = (2 * HOUR, 60 * HOUR)
MISSED_AT = 5  # times a day at which something must happen for a silence of so many to end before Stripe gives up
TOGETHER = 600  # seconds; events that follow each other sooner are of one happening
STORM_EVENTS, STORM_TIMES = (1, 20), (8, 60)  # Stripe itself delivers up to seven times in a day what is never acknowledged
STORM_LASTS = (3 * HOUR, 1200)


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One POST that arrives."""

    at: int
    """Unix seconds of its arrival."""
    event: StripeObject
    signed_at: int
    """Unix seconds of Stripe's signature; what lies between it and the arrival is the network's."""
    attempt: int = 1
    """Which attempt it is; the ones before it met no answer, or none in time."""


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is to go wrong with deliveries."""

    name: str
    at: datetime
    strength: float = 0.7
    """0: as faint as a person would still call it an incident; 1: nobody could miss it."""


class Plan(msgspec.Struct, kw_only=True):
    """A trouble in the making: when it is, what it does, and to which events."""

    trouble: Trouble
    rng: Random
    start: int
    end: int = 0
    stripe_slow: int = 0
    """Seconds by which Stripe sends late."""
    network_slow: int = 0
    """Seconds that a delivery is on its way."""
    away: bool = False
    """Whether nobody answers."""
    storm: dict[str, int] = msgspec.field(default_factory=dict)
    """Event id: how often it comes again."""
    description: str = ""
    touched: list[str] = msgspec.field(default_factory=list)
    last: int = 0
    """Unix seconds of the last arrival that shows it."""

    def between(self, bounds: tuple[float, float]) -> float:
        """Scale from faint to loud by strength."""
        return bounds[0] + (bounds[1] - bounds[0]) * self.trouble.strength

    def stripe_late(self, created: int) -> int:
        """By how many seconds Stripe sends an event late: its queue grows and shrinks, but keeps the order."""
        if not self.stripe_slow:
            return 0
        low, high = UNEVEN
        wave = math.sin(2 * math.pi * (created - self.start) / (WAVE * self.stripe_slow))
        return int(self.stripe_slow * ((low + high) / 2 + (high - low) / 2 * wave))

    def touch(self, sent: StripeObject, at: int) -> None:
        self.touched.append(sent["id"])
        self.last = max(self.last, at)


class TroubleKind(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which deliveries go wrong."""

    detector: str
    description: str
    plan: Callable[[Plan, Sequence[StripeObject]], None]
    """Decides how bad it is, given all events in their order."""
    also: tuple[str, ...] = ()
    """Other detectors that are right to report it, too."""
    fits: Callable[[Profile], bool] = any_account
    """Whether the account is of a kind in which somebody would notice."""


def _happens_often(profile: Profile) -> bool:
    """Tell whether an account is missed before Stripe gives up."""
    return profile.purchases_per_day + profile.customers * profile.subscribed / 30 >= MISSED_AT


def deliver(
    events: Iterable[StripeObject], *, seed: int, late: float = 0.01, doubled: float = 0.005, troubles: Sequence[Trouble] = ()
) -> list[Delivery]:
    """Deliver as Stripe does: within seconds but in no order, a share of it late, a share of it twice; in order of arrival.

    What meets no answer comes again, later and later, for three days.
    """
    return deliver_and_tell(events, seed=seed, late=late, doubled=doubled, troubles=troubles)[0]


def deliver_and_tell(
    events: Iterable[StripeObject],
    *,
    seed: int,
    late: float = 0.01,
    doubled: float = 0.005,
    troubles: Sequence[Trouble] = (),
    rhythm: Rhythm | None = None,
) -> tuple[list[Delivery], list[Label]]:
    """Deliver as Stripe does, and give the truth about the troubles; with the account's rhythm also whether anybody could know of a silence."""
    _check(troubles)
    sent_events = sorted(events, key=lambda sent: int(sent["created"]))
    plans = [_planned(trouble, sent_events, Random(f"{seed}/trouble/{place}")) for place, trouble in enumerate(troubles)]
    restarts = _restarts(sent_events, seed)
    deliveries: list[Delivery] = []
    for sent in sent_events:
        # A generator for each event: a trouble must not disturb the deliveries of others.
        deliveries += _delivered(sent, Random(f"{seed}/deliver/{sent['id']}"), late, doubled, plans, restarts)
    labels = [_label(plan, rhythm) for plan in plans if plan.touched]
    return sorted(deliveries, key=lambda delivery: delivery.at), sorted(labels, key=lambda label: label.started_at)


def slow_stripe(plan: Plan, events: Sequence[StripeObject]) -> None:
    """Let Stripe send events minutes or hours after they occurred."""
    plan.end, plan.stripe_slow = _slow_until(plan, events), int(plan.between(STRIPE_SLOW))
    plan.description = f"Stripe sent events about {plan.stripe_slow // 60} minutes late"


def slow_network(plan: Plan, events: Sequence[StripeObject]) -> None:
    """Let a proxy hold deliveries back after Stripe has signed them."""
    plan.end, plan.network_slow = _slow_until(plan, events), int(plan.between(NETWORK_SLOW))
    plan.description = f"deliveries were on their way for about {plan.network_slow} seconds"


def nobody_answers(plan: Plan, events: Sequence[StripeObject]) -> None:
    """Let nothing arrive until this account would not be silent of itself; then Stripe's retries bring what was missed."""
    lasts = min(max(_until(plan, events, plan.between(MISSED)) - plan.start, MISSED_LASTS[0]), MISSED_LASTS[1])
    plan.end, plan.away = plan.start + lasts, True
    plan.description = f"nothing arrived for {lasts // HOUR} hours"


def again_and_again(plan: Plan, events: Sequence[StripeObject]) -> None:
    """Let some events be delivered over and over, as to an endpoint that never answers in time."""
    first = bisect_left(events, plan.start, key=lambda sent: int(sent["created"]))
    chosen = events[first : first + round(plan.between(STORM_EVENTS))]
    plan.end = plan.start + int(plan.between(STORM_LASTS))
    plan.storm = {sent["id"]: max(STORM_TIMES[0], round(plan.between(STORM_TIMES) * plan.rng.uniform(*JITTER))) for sent in chosen}
    plan.description = f"{len(chosen)} events came about {round(plan.between(STORM_TIMES))} times each"


TROUBLES: Mapping[str, TroubleKind] = MappingProxyType(
    {
        "delivery_storm": TroubleKind(
            detector="delivery_storm", description="the same events are delivered over and over", plan=again_and_again
        ),
        "webhook_lag": TroubleKind(
            detector="webhook_lag", description="Stripe sends events 8 minutes to 2 hours late", plan=slow_stripe, also=("webhook_silence",)
        ),
        "webhook_lag_network": TroubleKind(
            detector="webhook_lag", description="deliveries are on their way for one to four minutes", plan=slow_network
        ),
        "webhook_silence": TroubleKind(
            detector="webhook_silence",
            description="nothing arrives for hours or days, then Stripe's retries do",
            plan=nobody_answers,
            also=("webhook_lag", "revenue_drop"),  # until the retries come, nobody can tell it from a shop in which nobody buys
            fits=_happens_often,
        ),
    }
)


def _planned(trouble: Trouble, events: Sequence[StripeObject], rng: Random) -> Plan:
    plan = Plan(trouble=trouble, rng=rng, start=int(trouble.at.timestamp()))
    TROUBLES[trouble.name].plan(plan, events)
    return plan


def _slow_until(plan: Plan, events: Sequence[StripeObject]) -> int:
    enough = _until(plan, events, plan.between(SLOW_HAPPENINGS))
    return min(max(enough, plan.start + int(plan.between(SLOW_LASTS))), plan.start + GIVES_UP)


def _until(plan: Plan, events: Sequence[StripeObject], happenings: float) -> int:
    """Give the time by which so many things have happened; events that follow each other closely are of one."""
    earlier = 0
    for sent in events[bisect_left(events, plan.start, key=lambda sent: int(sent["created"])) :]:
        created = int(sent["created"])
        happenings -= created - earlier > TOGETHER
        if happenings <= 0:
            return created + TOGETHER
        earlier = created
    return plan.start + GIVES_UP


def _restarts(events: Sequence[StripeObject], seed: int) -> list[tuple[int, int]]:
    """Give the short times in which the receiver was restarted."""
    if not events:
        return []
    rng = Random(f"{seed}/restarts")
    first, last = events[0]["created"], events[-1]["created"]
    return [(when, when + rng.randrange(*RESTART_LASTS)) for when in list(arrivals(rng, first, last, RESTARTS_PER_WEEK / (7 * DAY)))]


def _delivered(
    sent: StripeObject, rng: Random, late: float, doubled: float, plans: Sequence[Plan], restarts: Sequence[tuple[int, int]]
) -> list[Delivery]:
    created = int(sent["created"])
    signed_at, network, attempt = created + rng.randrange(PROMPT), NETWORK, 1
    comes_late, comes_twice, wait, wait_again = (
        rng.random() < late,
        rng.random() < doubled,
        rng.randrange(*RETRY_AFTER),
        rng.randrange(*RETRY_AFTER),
    )
    if comes_late:
        signed_at, attempt = signed_at + wait, 2
    for plan in plans:
        if (plan.stripe_slow or plan.network_slow) and plan.start <= created < plan.end:
            signed_at += plan.stripe_late(created)
            network += int(plan.network_slow * rng.uniform(*UNEVEN))
            plan.touch(sent, signed_at + network)
    at = signed_at + network
    while missed := [plan for plan in plans if plan.away and plan.start <= at < plan.end]:
        for plan in missed:
            plan.touch(sent, at)
        at, attempt = _retried(at, attempt, rng), attempt + 1
    while any(start <= at < end for start, end in restarts):
        at, attempt = _retried(at, attempt, rng), attempt + 1
    if at - created > GIVES_UP:
        return []
    found = [Delivery(at=at, event=sent, signed_at=at - network, attempt=attempt)]
    again = [at + wait_again] if comes_twice else []
    for plan in plans:
        if times := plan.storm.get(sent["id"]):
            again += [at + rng.randrange(1, plan.end - plan.start) for _ in range(times - 1)]
            plan.touch(sent, max(again, default=at))
    for number, repeated_at in enumerate(sorted(again), start=1):
        found.append(Delivery(at=repeated_at, event=sent, signed_at=repeated_at - NETWORK, attempt=attempt + number))
    return found


def _retried(at: int, attempt: int, rng: Random) -> int:
    return at + int(RETRIES[min(attempt, len(RETRIES)) - 1] * rng.uniform(*JITTER))


def _label(plan: Plan, rhythm: Rhythm | None) -> Label:
    kind = TROUBLES[plan.trouble.name]
    return Label(
        incident=kind.detector,
        variant=plan.trouble.name,
        strength=plan.trouble.strength,
        description=plan.description,
        started_at=plan.start,
        ended_at=plan.end if plan.away else plan.last,
        object_ids=[],
        event_ids=list(dict.fromkeys(plan.touched)),
        also=list(kind.also),
        arguable=plan.away and rhythm is not None and not rhythm.shows(plan.start, plan.end),
    )


def _check(troubles: Iterable[Trouble]) -> None:
    for trouble in troubles:
        if trouble.name not in TROUBLES:
            raise InputInvalid(reason=f"there is no trouble `{trouble.name}`", hint=f"choose from {', '.join(TROUBLES)}")
        if not 0 <= trouble.strength <= 1:
            raise InputInvalid(reason=f"the strength of a trouble lies between 0 and 1, not at {trouble.strength}")
        if trouble.at.tzinfo is None:
            raise InputInvalid(reason="the time of a trouble must have a time zone")
