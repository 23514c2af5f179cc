"""An ordinary business: who is there on the first day, and who buys and subscribes on each day after it."""

from __future__ import annotations

from functools import partial
from random import Random

from billingwatch.simulate.habits import take_up_habits
from billingwatch.simulate.objects.payments import Charge
from billingwatch.simulate.payments import DISPUTE_REASONS, checkout, dispute
from billingwatch.simulate.people import local, new_payer, pick_currency
from billingwatch.simulate.seasons import DAY, HOUR, arrivals, intensity, months_later
from billingwatch.simulate.subscribers import carry_on, new_customer, new_subscriber, second_subscription, sign_up
from billingwatch.simulate.world import World

TWICE = 0.02  # share of subscribers with two subscriptions to the same price
REGULARS = 1.5  # 1: every customer buys alike; more: the first buy more often
LONGEST_STANDING = 900 * DAY
FIRST_HOURS = 4 * HOUR  # of the first of the month, in which its subscriptions renew
DISPUTED_WITHIN = 35 * DAY


def open_business(world: World) -> None:
    """Put an ordinary account's days on the agenda."""
    for number in range(world.profile.customers):
        _settle(world, world.rng("customer", number))
    _disputes_of_the_past(world)
    for hour in range(world.start - world.start % HOUR, world.end, HOUR):
        rng = world.rng("hour", hour)
        growth = 1 + world.profile.growth * (hour - world.start) / (30 * DAY)
        busy = intensity(hour, world.profile.weekend)
        for when in arrivals(rng, hour, hour + HOUR, world.profile.purchases_per_day * growth * busy / DAY):
            world.at(when, partial(_purchase, world, rng.getrandbits(64)))
        joining = world.profile.customers * (world.profile.growth + world.profile.churn) / 30
        for when in arrivals(rng, hour, hour + HOUR, joining * world.profile.subscribed * busy / DAY):
            world.at(when, partial(_sign_up, world, rng.getrandbits(64)))
    take_up_habits(world)


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


def _purchase(world: World, number: int, when: int) -> None:
    purchase(world, when, world.rng("purchase", number))


def _sign_up(world: World, number: int, when: int) -> None:
    sign_up(world, when, world.rng("sign-up", number))


def _dispute(world: World, charge: Charge, reason: str, when: int) -> None:
    dispute(world, charge, when, world.rng("old dispute", charge.id), reason)


def _settle(world: World, rng: Random) -> None:
    """Make a customer of long standing."""
    joined = world.start - rng.randrange(DAY, LONGEST_STANDING)
    if rng.random() < world.profile.month_start:
        joined = months_later(joined, 0, 1) - joined % DAY + rng.randrange(FIRST_HOURS)
    customer = new_customer(world, joined, rng)
    world.customers.append(customer)
    if rng.random() >= world.profile.subscribed:
        return
    subscriber = new_subscriber(world, customer, joined, rng, now=world.start)
    carry_on(world, subscriber)
    if rng.random() < TWICE:
        carry_on(world, second_subscription(world, subscriber, rng.randrange(5, 50), rng))


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
