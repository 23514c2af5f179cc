"""An ordinary business: who is there on the first day, and who buys and subscribes on each day after it."""

from __future__ import annotations

from functools import partial
from random import Random

from billingwatch.simulate.billing import Subscriber
from billingwatch.simulate.cards import follow_card, valid_beyond
from billingwatch.simulate.habits import take_up_habits
from billingwatch.simulate.objects.declines import ISSUER_OUTAGE
from billingwatch.simulate.objects.payments import Charge
from billingwatch.simulate.payments import DISPUTE_REASONS, checkout, dispute
from billingwatch.simulate.people import local, new_payer, pick_currency
from billingwatch.simulate.seasons import DAY, HOUR, arrivals, day_start, intensity, months_later, season
from billingwatch.simulate.subscribers import carry_on, new_customer, new_subscriber, second_subscription, sign_up
from billingwatch.simulate.world import Outage, World

TWICE = 0.02  # share of subscribers with two subscriptions to the same price
REGULARS = 1.5  # 1: every customer buys alike; more: the first buy more often
LONGEST_STANDING = 900 * DAY
FIRST_HOURS = 4 * HOUR  # of the first of the month, in which its subscriptions renew
DISPUTED_WITHIN = 35 * DAY
LEAST = 0.2  # of its purchases remain to an account that shrinks
WOBBLE_LASTS = (10 * 60, 40 * 60)
WOBBLE_RATE = (0.03, 0.14)  # share of payments refused beyond the usual
SALE = (1.7, 3.0)


def open_business(world: World) -> None:
    """Put an ordinary account's days on the agenda."""
    profile = world.profile
    for number in range(profile.customers):
        _settle(world, world.rng("customer", number))
    _disputes_of_the_past(world)
    _wobbles(world)
    world.sales = sales_of(world)
    for hour in range(world.start - world.start % HOUR, world.end, HOUR):
        rng = world.rng("hour", hour)
        for when in arrivals(rng, hour, hour + HOUR, purchases_per_day(world, hour) / DAY):
            world.at(when, partial(_purchase, world, rng.getrandbits(64)))
        for when in arrivals(rng, hour, hour + HOUR, joining_per_day(world, hour) / DAY):
            world.at(when, partial(_sign_up, world, rng.getrandbits(64)))
    take_up_habits(world)


def purchases_per_day(world: World, hour: int) -> float:
    """Give the rate of purchases in an hour."""
    growth = max(LEAST, 1 + world.growth * (hour - world.start) / (30 * DAY))
    return world.profile.purchases_per_day * growth * _busy(world, hour)


def joining_per_day(world: World, hour: int) -> float:
    """Give the rate of sign-ups in an hour."""
    profile = world.profile
    joining = profile.customers * max(0.0, world.growth + profile.churn) / 30
    return joining * profile.subscribed * _busy(world, hour)


def purchase(world: World, when: int, rng: Random, *, guest: bool | None = None) -> None:
    """Buy one thing once."""
    profile = world.profile
    if guest is None:
        guest = rng.random() < profile.guests
    if guest or not world.customers:
        currency = pick_currency(rng, profile.currencies)
        payer = new_payer(world, rng, when, currency, guest=True)
    else:
        customer = world.customers[int(profile.customers * rng.random() ** REGULARS)]
        payer, currency = customer.payer, customer.currency
    order_id = f"{rng.randrange(10**6, 10**7)}" if profile.order_ids else None
    checkout(world, payer, local(rng.choice(profile.items), currency), currency, when, rng, order_id=order_id)


def _busy(world: World, hour: int) -> float:
    profile = world.profile
    return intensity(hour, profile.weekend) * season(hour, profile.holiday, profile.month_end) * world.sales.get(day_start(hour), 1.0)


def _purchase(world: World, number: int, when: int) -> None:
    if not world.lost(world.rng("checkout", number), when):
        purchase(world, when, world.rng("purchase", number))


def _sign_up(world: World, number: int, when: int) -> None:
    if not world.lost(world.rng("checkout", number), when):
        sign_up(world, when, world.rng("sign-up", number))


def _dispute(world: World, charge: Charge, reason: str, when: int) -> None:
    dispute(world, charge, when, world.rng("old dispute", charge.id), reason)


def _settle(world: World, rng: Random) -> None:
    """Make a customer of long standing."""
    joined = world.start - rng.randrange(DAY, LONGEST_STANDING)
    if rng.random() < world.profile.month_start:
        joined = months_later(joined, 0, 1) - joined % DAY + rng.randrange(FIRST_HOURS)
    customer = new_customer(world, joined, rng)
    valid_beyond(customer, world.start)
    world.customers.append(customer)
    subscribers: list[Subscriber] = []
    if rng.random() < world.profile.subscribed:
        subscribers.append(new_subscriber(world, customer, joined, rng, now=world.start))
        carry_on(world, subscribers[0])
        if rng.random() < TWICE:
            subscribers.append(second_subscription(world, subscribers[0], rng.randrange(5, 50), rng))
            carry_on(world, subscribers[1])
    follow_card(world, customer, subscribers, joined)


def _wobbles(world: World) -> None:
    """Let an issuer refuse somewhat more than usual for a short time: less than anybody would call an incident."""
    for when in arrivals(world.rng("wobbles"), world.start, world.end, world.profile.wobbles_per_week / (7 * DAY)):
        rng = world.rng("wobble", when)
        end = when + rng.randrange(*WOBBLE_LASTS)
        world.outages.append(Outage(start=when, end=end, rate=world.profile.declines + rng.uniform(*WOBBLE_RATE), declines=ISSUER_OUTAGE))


def sales_of(world: World) -> dict[int, float]:
    """Give the days on which more people buy, and how many times as many."""
    days = arrivals(world.rng("sales"), world.start, world.end, world.profile.sales_per_month / (30 * DAY))
    return {day_start(when): world.rng("sale", day_start(when)).uniform(*SALE) for when in days}


def _disputes_of_the_past(world: World) -> None:
    """Dispute charges from before the stream, which a receiver has never seen."""
    profile, rng = world.profile, world.rng("old disputes")
    for when in arrivals(rng, world.start, world.start + DISPUTED_WITHIN, profile.disputes * profile.purchases_per_day / DAY / 2):
        currency = pick_currency(rng, profile.currencies)
        created = world.start - rng.randrange(DAY, DISPUTED_WITHIN)
        charge = Charge(
            id=world.new_id("ch_3", created, rng),
            amount=local(rng.choice(profile.items), currency),
            currency=currency,
            created=created,
            payer=new_payer(world, rng, created, currency),
            payment_intent=world.new_id("pi_3", created, rng),
        )
        world.at(when, partial(_dispute, world, charge, rng.choice(DISPUTE_REASONS)))
