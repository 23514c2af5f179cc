"""Subscriptions fall, leave, are billed wrongly, twice, in vain or not at all."""

from __future__ import annotations

from functools import partial
from typing import Literal

import msgspec

from billingwatch.simulate.billing import Subscriber, draft, finalize, subscription_line
from billingwatch.simulate.cards import replace_card
from billingwatch.simulate.incidents.extras import known_member, member, monthly
from billingwatch.simulate.incidents.scenes import Scene
from billingwatch.simulate.objects.payers import PaymentMethod
from billingwatch.simulate.objects.subscriptions import Price
from billingwatch.simulate.people import price
from billingwatch.simulate.seasons import DAY, HOUR, moment, months_later
from billingwatch.simulate.subscribers import cancel, change, renew

SEATS = 24
HALF = 0.5  # strength from which a downgrade is one of price and not of seats
CHURN_LASTS = 30 * HOUR
FEWEST_LEAVERS = 5
NOTICES = 0.4  # of so many as end, others give notice in the same hours; theirs end with their periods, long after
DOUBLE_LASTS = 30 * HOUR
MISBILLED_LASTS = 2 * HOUR
RETRIED_FOR = 5 * DAY + HOUR  # from an invoice to its last attempt, but for some minutes
LAPSE_LASTS = 8 * DAY  # until anybody who watches must have seen that no invoice came
LAPSES_WITHIN = 12 * HOUR
EXPIRY_LASTS = 31 * DAY
EXPIRES_WITHIN = 30 * DAY
TOO_SOON = 3 * DAY
TOO_LITTLE = 0.3  # share of wrong invoices that ask for less than they should


def fall(scene: Scene) -> None:
    """Let a customer keep a part of the seats, or move to the cheapest plan."""
    world = scene.world
    prices = world.profile.prices
    dear, faint = len(prices) - 1, scene.strength < HALF
    left = max(1, round(SEATS * (1 - scene.between(0.15, 0.9))))
    subscriber = known_member(scene, scene.at, tier=dear, quantity=SEATS)
    subscription = subscriber.subscription
    to = subscription.price if faint else price(world, 0, subscription.price.currency, "month")
    scene.since, scene.evidence, scene.subjects = scene.at, [subscription.id], [subscription.customer]
    scene.description = f"a subscription fell from {SEATS} {subscription.price.nickname} to {left if faint else SEATS} {to.nickname}"
    world.at(scene.at, lambda at: change(world, subscriber, to, left if faint else SEATS, at, scene.rng, at_once=False))


def leave_together(scene: Scene) -> None:
    """Let many subscriptions end within a day, as after a rise in prices, and others be cancelled for later."""
    world, rng = scene.world, scene.rng
    subscribed = world.profile.customers * world.profile.subscribed
    count, lasts = max(FEWEST_LEAVERS, round(subscribed * scene.between(0.05, 0.2))), int(scene.between(CHURN_LASTS - HOUR, 6 * HOUR))
    scene.since, scene.description = scene.at, f"{count} subscriptions ended within {lasts // HOUR} hours"
    for number in range(count + round(count * NOTICES)):
        subscriber = known_member(scene, scene.at)
        scene.evidence.append(subscriber.subscription.id)
        scene.subjects.append(subscriber.customer.id)
        when = scene.at + (0 if number == 0 else rng.randrange(lasts))
        world.at(when, partial(_leave, scene, subscriber, number >= count))


def bill_twice(scene: Scene) -> None:
    """Let a job that runs twice make a second invoice of the same period."""
    world = scene.world
    subscriber = monthly(scene, scene.at)
    gap = int(scene.between(20 * HOUR, 30))
    scene.subjects += [subscriber.subscription.id, subscriber.customer.id]
    scene.description = f"a period was billed again {gap} s after its invoice"
    world.at(scene.at + 1, partial(_note, scene, subscriber))
    world.at(scene.at + gap, lambda at: _bill_again(scene, subscriber, at))


def bill_early(scene: Scene) -> None:
    """Let a period be billed days before the one that is paid for has ended."""
    world = scene.world
    early = round(scene.between(3, 12))
    subscriber = monthly(scene, scene.at + early * DAY)
    scene.subjects += [subscriber.subscription.id, subscriber.customer.id]
    scene.description = f"a period was billed {early} days before its time"
    world.at(scene.at, lambda at: _renew_early(scene, subscriber, at))


def bill_wrong_price(scene: Scene) -> None:
    """Let a renewal charge another price than the subscription's."""
    world, rng = scene.world, scene.rng
    subscriber = monthly(scene, scene.at)
    was = subscriber.subscription.price
    wrong = msgspec.structs.replace(
        was, id=world.new_id("price_1", was.created, rng), unit_amount=max(1, round(was.unit_amount * (1 + _off(scene))))
    )
    scene.description = f"a renewal was billed at {wrong.unit_amount} instead of {was.unit_amount} {was.currency}"
    _misbill(scene, subscriber, wrong, subscriber.subscription.quantity)


def bill_wrong_quantity(scene: Scene) -> None:
    """Let a renewal charge another quantity than the subscription's."""
    subscriber = monthly(scene, scene.at, quantity=SEATS)
    wrong = max(1, round(SEATS * (1 + _off(scene))))
    scene.description = f"a renewal billed {wrong} seats instead of {SEATS}"
    _misbill(scene, subscriber, subscriber.subscription.price, wrong)


def refuse_to_pay(scene: Scene) -> None:
    """Let every attempt to collect a renewal fail; the last of them is the incident."""
    world, due = scene.world, scene.at - RETRIED_FOR
    subscriber = member(scene, due, quantity=round(scene.between(1, SEATS)))
    subscriber.refused, scene.since = True, scene.at
    scene.subjects += [subscriber.subscription.id, subscriber.customer.id]
    scene.description = "a renewal ran out of attempts to collect it"
    world.at(due, partial(renew, world, subscriber))
    world.at(due + 1, partial(_note, scene, subscriber))


def forget_to_bill(scene: Scene) -> None:
    """Let renewals pass without an invoice."""
    _lapse(scene, "unbilled")


def forget_to_finalize(scene: Scene) -> None:
    """Let the invoices of renewals stay drafts."""
    _lapse(scene, "draft")


def let_cards_end(scene: Scene) -> None:
    """Let subscriptions renew with cards that end within the month, and nobody replaces them."""
    world, rng = scene.world, scene.rng
    when = moment(scene.at)
    months = [divmod(when.year * 12 + when.month - 1 + later, 12) for later in (0, 1)]
    ends = [months_later(scene.at - scene.at % DAY - (when.day - 1) * DAY, later, 1) for later in (1, 2)]
    place = 1 if ends[0] - scene.at < TOO_SOON and ends[0] + DAY < world.end else 0
    # The renewal after this one must not come while the card is good.
    first = ends[0] + HOUR if place else scene.at
    year, month = months[place]
    count = round(scene.between(1, 6))
    scene.started_at, scene.ended_at = max(first, ends[place] - EXPIRES_WITHIN), ends[place] - 1
    scene.description = f"the cards of {count} subscriptions end in {month + 1}/{year}"
    for number in range(count):
        due = first + (0 if number == 0 else rng.randrange(HOUR))
        subscriber = member(scene, due)
        replace_card(subscriber.customer, exp_month=month + 1, exp_year=year)
        scene.evidence += [subscriber.customer.payer.card.payment_method, subscriber.subscription.id]
        scene.subjects.append(subscriber.customer.id)
        world.at(due, partial(renew, world, subscriber))
        world.at(due, partial(_confirm_card, scene, subscriber))


def _off(scene: Scene) -> float:
    """Tell by which share an invoice is wrong; too little is rarer than too much."""
    return -scene.between(0.08, 0.6) if scene.rng.random() < TOO_LITTLE else scene.between(0.08, 2.0)


def _leave(scene: Scene, subscriber: Subscriber, at_period_end: bool, when: int) -> None:
    cancel(scene.world, subscriber, when, at_period_end=at_period_end)


def _stall(subscriber: Subscriber, how: Literal["unbilled", "draft"], _: int) -> None:
    subscriber.stalled = how


def _misprice(subscriber: Subscriber, billed: Price, quantity: int, _: int) -> None:
    subscriber.misbilled = billed, quantity


def _note(scene: Scene, subscriber: Subscriber, _: int) -> None:
    """Remember the newest invoice as the one that is wrong."""
    if subscriber.subscription.latest_invoice is not None:
        scene.evidence.append(subscriber.subscription.latest_invoice)


def _bill_again(scene: Scene, subscriber: Subscriber, when: int) -> None:
    world, subscription, rng = scene.world, subscriber.subscription, scene.rng
    lines = (subscription_line(world, subscriber, rng, when),)
    previous = months_later(subscription.period_start, -1, subscriber.anchor_day)
    invoice = draft(world, subscriber, lines, "subscription_cycle", when, rng, previous, subscription.period_start)
    scene.evidence.append(invoice.id)
    world.at(when + HOUR + rng.randrange(5, 600), lambda at: finalize(world, subscriber, invoice, at, rng))


def _renew_early(scene: Scene, subscriber: Subscriber, when: int) -> None:
    subscriber.subscription.period_end, subscriber.anchor_day = when, moment(when).day
    renew(scene.world, subscriber, when)
    _note(scene, subscriber, when)


def _misbill(scene: Scene, subscriber: Subscriber, billed: Price, quantity: int) -> None:
    scene.subjects += [subscriber.subscription.id, subscriber.customer.id]
    # Just before the renewal, which the agenda has at the same second.
    scene.world.at(scene.at, partial(_misprice, subscriber, billed, quantity))
    scene.world.at(scene.at + 1, partial(_note, scene, subscriber))


def _lapse(scene: Scene, how: Literal["unbilled", "draft"]) -> None:
    world, rng = scene.world, scene.rng
    count = round(scene.between(1, 8))
    scene.started_at, scene.ended_at = scene.at, scene.at + LAPSE_LASTS
    scene.description = f"{count} renewals {'passed without an invoice' if how == 'unbilled' else 'have invoices that stay drafts'}"
    for number in range(count):
        due = scene.at + (0 if number == 0 else rng.randrange(LAPSES_WITHIN))
        subscriber = monthly(scene, due)
        scene.evidence.append(subscriber.subscription.id)
        scene.subjects.append(subscriber.customer.id)
        world.at(due, partial(_stall, subscriber, how))
        if how == "draft":
            world.at(due + 1, partial(_note, scene, subscriber))


def _confirm_card(scene: Scene, subscriber: Subscriber, when: int) -> None:
    """Let the customer correct the address of their card and leave the rest as it is."""
    world, customer = scene.world, subscriber.customer
    before = world.look(PaymentMethod(payer=customer.payer, created=customer.created))
    customer.payer = msgspec.structs.replace(customer.payer, line1=f"{customer.payer.line1}, 2nd floor")
    world.changed("payment_method.updated", PaymentMethod(payer=customer.payer, created=customer.created), before, when, by_api=True)
