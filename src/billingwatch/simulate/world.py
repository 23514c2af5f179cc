"""The world of one account: an agenda of what happens when, the events that Stripe has made of it, and chance."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable
from hashlib import blake2b
from random import Random

import msgspec

from billingwatch.simulate.objects.declines import EVERYDAY, Decline
from billingwatch.simulate.objects.payers import Customer
from billingwatch.simulate.objects.shapes import TAILS, Facts, StripeObject, event, second, tail
from billingwatch.simulate.profiles import Profile

Action = Callable[[int], object]
STEERED = 0.15  # share of an outage's shortfall in failures that the next payment makes up for
Declines = tuple[tuple[Decline, int], ...]


class Outage(msgspec.Struct, kw_only=True):
    """A time in which payments fail that would not have failed otherwise."""

    start: int
    end: int
    rate: float
    """Share of attempts that fail, 0 to 1."""
    declines: Declines
    charges: list[str] = msgspec.field(default_factory=list)
    """Ids of those that did."""
    tried: int = 0
    failed: int = 0


class Closure(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which the checkout loses purchases."""

    start: int
    end: int
    share: float
    """Share of purchases and sign-ups that never come about, 0 to 1."""


class Truth(msgspec.Struct, kw_only=True):
    """Something that happens in any account, and that whoever watches it is right to report."""

    detector: str
    description: str
    started_at: int
    ended_at: int | None = None
    """None: with the last event of its evidence."""
    evidence: list[str]
    """Ids of objects whose events show it."""
    subjects: list[str] = msgspec.field(default_factory=list)
    """Ids of objects that it is about, besides."""
    shown_by: list[list[str]] = msgspec.field(default_factory=list)
    """Nobody can know before an event has shown one object of each of these."""
    arguable: bool = False
    """Whoever reports it is right, and so is whoever does not."""


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """A refund, until it is known what is usual in this account."""

    refund: str
    amount: int
    currency: str
    paid: int
    """All of the payment that it is from."""
    created: int
    subjects: list[str]


class World:
    """Runs the agenda. Draw from `rng(...)`, named after the subject, so that subjects do not disturb each other's chances."""

    def __init__(self, *, seed: int, start: int, end: int, profile: Profile, livemode: bool, account: str | None) -> None:
        self.start = start
        self.end = end
        self.profile = profile
        self.customers: list[Customer] = []
        self.outages: list[Outage] = []
        self.closures: list[Closure] = []
        self.sales: dict[int, float] = {}
        """By midnight: how many times as many people buy on a day of a sale."""
        self.truths: list[Truth] = []
        self.paid: defaultdict[str, list[int]] = defaultdict(list)
        """By currency: the amounts of payments that succeeded."""
        self.given: list[Given] = []
        self.bought_at: dict[str, int] = {}
        """When a customer, or an address without one, last bought something."""
        self._seed = seed
        self._livemode = livemode
        self._account = account
        self._suffix = tail(self.rng("account").randrange(TAILS)) + "WZ"
        self._agenda: list[tuple[int, int, Action]] = []
        self._planned = 0
        self._events: list[StripeObject] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        self.growth = profile.growth + profile.drift * self.rng("trend").uniform(-1, 1)

    def rng(self, *subject: object) -> Random:
        """Give the generator of one subject; the same subject gets the same chances again."""
        return Random("/".join(map(str, (self._seed, *subject))))

    def at(self, when: int, action: Action) -> None:
        """Put something on the agenda; what lies behind the end never happens."""
        self._planned += 1
        if when < self.end:
            heapq.heappush(self._agenda, (when, self._planned, action))

    def run(self) -> list[StripeObject]:
        """Let everything happen, and give the events in the order in which they occurred."""
        while self._agenda:
            when, _, action = heapq.heappop(self._agenda)
            action(when)
        # Stable: of one second, what Stripe made first comes first.
        return sorted((sent for sent in self._events if self.start <= sent["created"] < self.end), key=lambda sent: int(sent["created"]))

    def new_id(self, prefix: str, created: int, rng: Random) -> str:
        """Make an id such as ch_3…, dated and of this account."""
        return f"{prefix}{second(created)}{self._suffix}{tail(rng.getrandbits(47))}"

    def short_id(self, prefix: str, rng: Random) -> str:
        """Make an id such as cus_…, which shows no date."""
        return f"{prefix}{tail(rng.getrandbits(47))}{tail(rng.getrandbits(47))[2:]}"

    def look(self, facts: Facts) -> StripeObject:
        """Give an object as it is now, to tell `changed` what it was before."""
        return facts.render(self.profile.shape, livemode=self._livemode)

    def emit(self, event_type: str, facts: Facts, when: int, *, by_api: bool = False) -> None:
        """Send an event about an object as it is now; `by_api`: somebody's request caused it."""
        self._send(event_type, facts.id, self.look(facts), when, by_api=by_api)

    def changed(self, event_type: str, facts: Facts, before: StripeObject, when: int, *, by_api: bool = False) -> None:
        """Send an event that tells what an object was before."""
        after = self.look(facts)
        self._send(event_type, facts.id, after, when, previous=difference(before, after), by_api=by_api)

    def decide(self, rng: Random, when: int, rate: float) -> tuple[Decline | None, Outage | None]:
        """Decide whether a payment is refused, and whose fault it is."""
        chance, pick = rng.random(), rng.random()
        outage = next((outage for outage in self.outages if outage.start <= when < outage.end), None)
        if outage is None:
            return (weighted(pick, EVERYDAY) if chance < rate else None), None
        # Few payments must not make an outage by chance what it is not meant to be.
        bound = outage.rate + STEERED * (outage.rate * outage.tried - outage.failed)
        outage.tried += 1
        outage.failed += chance < max(rate, bound)
        if chance < rate:
            return weighted(pick, EVERYDAY), None
        return (weighted(pick, outage.declines), outage) if chance < bound else (None, None)

    def lost(self, rng: Random, when: int) -> bool:
        """Tell whether a purchase never comes about because the checkout is broken."""
        chance = rng.random()
        return any(closure.start <= when < closure.end and chance < closure.share for closure in self.closures)

    def note(self, truth: Truth) -> Truth:
        """Remember what a detector may truthfully report."""
        self.truths.append(truth)
        return truth

    def _send(
        self, event_type: str, object_id: str, rendered: StripeObject, when: int, *, previous: StripeObject | None = None, by_api: bool
    ) -> None:
        # Hashed, not drawn: an event's id must not depend on what else happens in the account.
        self._counts[event_type, object_id] += 1
        count = self._counts[event_type, object_id]
        digest = blake2b(f"{self._seed}/{event_type}/{object_id}/{count}".encode(), digest_size=16).hexdigest()
        event_id = f"evt_1{second(when)}{self._suffix}{tail(int(digest[:12], 16) % TAILS)}"
        request = (
            (f"req_{digest[12:26]}", f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-a{digest[17:20]}-{digest[20:]}") if by_api else None
        )
        self._events.append(
            event(
                event_id,
                event_type,
                rendered,
                created=when,
                shape=self.profile.shape,
                livemode=self._livemode,
                account=self._account,
                previous=previous,
                request=request,
            )
        )


def weighted(pick: float, choices: Declines) -> Decline:
    """Choose by weight with one number from 0 to 1."""
    left = pick * sum(weight for _, weight in choices)
    for choice, weight in choices:
        left -= weight
        if left < 0:
            return choice
    return choices[-1][0]


def difference(before: StripeObject, after: StripeObject) -> StripeObject:
    """Give the old values of what changed: nested objects by field, lists whole, as in `previous_attributes`."""
    old: StripeObject = {}
    for key, value in before.items():
        now = after.get(key)
        if isinstance(value, dict) and isinstance(now, dict):
            if inner := difference(value, now):
                old[key] = inner
        elif value != now:
            old[key] = value
    return old
