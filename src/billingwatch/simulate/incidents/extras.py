"""People who are there for an incident only, so that it leaves everybody else as they were."""

from __future__ import annotations

from functools import partial

from billingwatch.simulate.billing import Subscriber
from billingwatch.simulate.cards import valid_beyond
from billingwatch.simulate.incidents.scenes import Scene
from billingwatch.simulate.objects.payers import Payer
from billingwatch.simulate.objects.payments import Charge
from billingwatch.simulate.payments import conclude, order
from billingwatch.simulate.people import new_payer, price
from billingwatch.simulate.seasons import DAY, HOUR, moment, months_later
from billingwatch.simulate.subscribers import new_customer, new_subscriber, renew

MEMBER_MONTHS = 6  # how long a subscriber has been one when the incident happens
CARD_LASTS = 100 * DAY


def member(scene: Scene, due: int, *, tier: int | None = None, quantity: int | None = None) -> Subscriber:
    """Make a monthly subscriber of some standing whose next period begins at `due`, and who does nothing but pay."""
    world, rng = scene.world, scene.rng
    joined = months_later(due, -MEMBER_MONTHS, moment(due).day)
    customer = new_customer(world, joined, rng)
    valid_beyond(customer, due + CARD_LASTS)
    subscriber = new_subscriber(world, customer, joined, rng, now=due - 1, interval="month")
    subscription = subscriber.subscription
    subscription.period_start, subscription.period_end = months_later(due, -1, moment(due).day), due
    subscription.days_until_due = None
    if tier is not None:
        subscription.price = price(world, tier, customer.currency, "month")
    if quantity is not None:
        subscription.quantity = quantity
    subscriber.anchor_day, subscriber.steady = moment(due).day, True
    return subscriber


def known_member(scene: Scene, before: int, *, tier: int | None = None, quantity: int | None = None) -> Subscriber:
    """Make a subscriber whose renewal some days before an incident has shown them to whoever watches."""
    world = scene.world
    first = min(world.start + HOUR, before - HOUR)
    due = max(first, before - scene.rng.randrange(2 * DAY, 25 * DAY))
    subscriber = member(scene, due, tier=tier, quantity=quantity)
    world.at(due, partial(renew, world, subscriber))
    return subscriber


def monthly(scene: Scene, due: int, *, quantity: int | None = None) -> Subscriber:
    """Make a subscriber whose next period begins at `due`, and who is known from the one before or from a change."""
    world, anchor_day = scene.world, moment(due).day
    before = months_later(due, -1, anchor_day)
    subscriber = member(scene, before, quantity=quantity)
    subscriber.anchor_day = anchor_day
    world.at(before, partial(renew, world, subscriber))
    if before < world.start:
        subscriber.subscription.discount = None  # no invoice was heard of that would tell how much it leaves
        world.at(min(world.start + HOUR, scene.at - 1), partial(show, scene, subscriber))
    return subscriber


def show(scene: Scene, subscriber: Subscriber, when: int) -> None:
    """Let an ordinary change show a subscription to whoever watches."""
    world, subscription = scene.world, subscriber.subscription
    before = world.look(subscription)
    subscription.metadata = {**subscription.metadata, "region": "eu"}
    world.changed("customer.subscription.updated", subscription, before, when, by_api=True)


def stranger(scene: Scene, when: int, currency: str | None = None) -> Payer:
    return new_payer(scene.world, scene.rng, when, currency or scene.world.profile.currencies[0], guest=True)


def pay(scene: Scene, payer: Payer, amount: int, currency: str, when: int) -> Charge:
    """Take a payment that succeeds and has no aftermath."""
    world, rng = scene.world, scene.rng
    intent = order(world, payer, amount, currency, when, rng, order_id=f"{rng.randrange(10**6, 10**7)}")
    return conclude(world, intent, when, rng, None)


def days_before(scene: Scene, earliest: int, latest: int) -> int:
    """Choose an instant so many seconds before the incident, within the stream if there is room."""
    return max(min(scene.world.start + HOUR, scene.at - 1), scene.at - scene.rng.randrange(earliest, latest))
