"""Cards come to their end: the network replaces them, or their owner does, or nobody."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec

from billingwatch.simulate.billing import Subscriber
from billingwatch.simulate.objects.payers import Card, Customer, PaymentMethod
from billingwatch.simulate.people import new_card
from billingwatch.simulate.seasons import DAY
from billingwatch.simulate.world import Truth, World

BY_NETWORK, BY_OWNER = 0.6, 0.25  # shares of cards that are replaced; the rest just end
NETWORK_AHEAD = (20 * DAY, 75 * DAY)  # before the card's end
OWNER_AHEAD = (-4 * DAY, 28 * DAY)  # some notice only when a payment has failed
WARNED_WITHIN = 30 * DAY  # before a card's end, who pays with it is worth a reminder
LASTS_YEARS = 3


def replace_card(customer: Customer, **changes: object) -> None:
    customer.payer = msgspec.structs.replace(customer.payer, card=msgspec.structs.replace(customer.payer.card, **changes))


def valid_beyond(customer: Customer, when: int) -> None:
    """Let the networks have replaced a card that would have ended by then."""
    while customer.payer.card.expired(when):
        replace_card(customer, exp_year=customer.payer.card.exp_year + LASTS_YEARS)


def follow_card(world: World, customer: Customer, subscribers: Sequence[Subscriber], now: int) -> None:
    """Put on the agenda what becomes of the card that a customer pays with now."""
    card = customer.payer.card
    ends, rng = card.ends(), world.rng("card", card.payment_method, card.exp_year)
    fate, ahead, owner_ahead = rng.random(), rng.randrange(*NETWORK_AHEAD), rng.randrange(*OWNER_AHEAD)
    if subscribers:
        world.at(max(now + 1, ends - WARNED_WITHIN, world.start), lambda at: _remind(world, customer, subscribers, card, at))
    if fate < BY_NETWORK:
        world.at(max(now + 1, ends - ahead), lambda at: _by_network(world, customer, subscribers, card, at, rng))
    elif fate < BY_NETWORK + BY_OWNER:
        world.at(max(now + DAY, ends - owner_ahead), lambda at: by_owner(world, customer, subscribers, card, at, rng))


def by_owner(world: World, customer: Customer, subscribers: Sequence[Subscriber], card: Card, when: int, rng: Random) -> None:
    """Save another card, and pay with it from now on."""
    if customer.payer.card != card:
        return
    before, payer = world.look(customer), customer.payer
    owned = world.look(PaymentMethod(payer=payer, created=customer.created))
    customer.payer = msgspec.structs.replace(payer, card=new_card(world, rng, when, payer.country))
    valid_beyond(customer, when + WARNED_WITHIN)
    customer.default_payment_method = customer.payer.card.payment_method
    world.emit("payment_method.attached", PaymentMethod(payer=customer.payer, created=when), when, by_api=True)
    world.changed("customer.updated", customer, before, when + 1, by_api=True)
    for subscriber in subscribers:
        subscription = subscriber.subscription
        if subscription.ended_at is None:
            paid_with = world.look(subscription)
            subscription.default_payment_method = customer.default_payment_method
            world.changed("customer.subscription.updated", subscription, paid_with, when + 2, by_api=True)
    detached = PaymentMethod(payer=msgspec.structs.replace(payer, customer=None), created=customer.created)
    world.changed("payment_method.detached", detached, owned, when + 3, by_api=True)
    _replaced(world, card, when)
    follow_card(world, customer, subscribers, when)


def _by_network(world: World, customer: Customer, subscribers: Sequence[Subscriber], card: Card, when: int, rng: Random) -> None:
    if customer.payer.card != card:
        return
    before = world.look(PaymentMethod(payer=customer.payer, created=customer.created))
    replace_card(customer, exp_year=card.exp_year + LASTS_YEARS, last4=f"{rng.randrange(10_000):04d}")
    world.changed("payment_method.automatically_updated", PaymentMethod(payer=customer.payer, created=customer.created), before, when)
    _replaced(world, card, when)
    follow_card(world, customer, subscribers, when)


def _remind(world: World, customer: Customer, subscribers: Sequence[Subscriber], card: Card, when: int) -> None:
    running = [subscriber.subscription for subscriber in subscribers if subscriber.subscription.ended_at is None]
    if customer.payer.card != card or not running or card.expired(when):
        return
    # Where a renewal comes before the card's end, or none is charged to it, it need not be told: not yet.
    lasting = [
        subscription.id
        for subscription in running
        if subscription.status == "active"
        and subscription.days_until_due is None
        and subscription.resumes_at is None
        and not subscription.cancel_at_period_end
        and subscription.period_end >= card.ends()
    ]
    if lasting:
        note_ending(world, customer, card, lasting, when)
    else:
        world.at(when + DAY, lambda at: _remind(world, customer, subscribers, card, at))


def note_ending(world: World, customer: Customer, card: Card, subscriptions: Sequence[str], when: int) -> None:
    """Note that a card which pays for subscriptions is about to end."""
    world.note(
        Truth(
            detector="card_expiry",
            description=f"a card that pays for {len(subscriptions)} subscriptions ends in {card.exp_month}/{card.exp_year}",
            started_at=when,
            ended_at=card.ends(),
            evidence=[card.payment_method, *subscriptions],
            subjects=[customer.id],
            shown_by=[[card.payment_method], list(subscriptions)],
        )
    )


def _replaced(world: World, card: Card, when: int) -> None:
    for truth in world.truths:
        if truth.detector == "card_expiry" and truth.evidence[0] == card.payment_method and (truth.ended_at or when) > when:
            truth.ended_at = when
