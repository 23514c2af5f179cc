"""Credits that are given more than once."""

from __future__ import annotations

from billingwatch.simulate.billing import item_line
from billingwatch.simulate.incidents.scenes import Scene
from billingwatch.simulate.objects.invoices import Invoice
from billingwatch.simulate.seasons import HOUR
from billingwatch.simulate.subscribers import new_customer, new_subscriber, renew

NEGATIVE_LASTS = 2 * HOUR
MEMBER_FOR = 190 * 24 * HOUR
STACKED = 3  # how often the bug has given the credit


def stacked_credits(scene: Scene) -> None:
    """Let a renewal carry the same loyalty credit several times, so that the invoice owes the customer money."""
    world, rng = scene.world, scene.rng
    joined = scene.at - MEMBER_FOR
    customer = new_customer(world, joined, rng)
    subscriber = new_subscriber(world, customer, joined, rng, now=scene.at - 1, interval="month")
    subscription = subscriber.subscription
    subscription.period_end, subscription.discount = scene.at, None
    owed = subscription.price.unit_amount * subscription.quantity
    each = -round(owed * (1 + scene.between(0.05, 3.0)) / STACKED)
    subscriber.waiting += [
        item_line(world, subscriber, rng, scene.at - HOUR * (STACKED - place), each, "Loyalty credit") for place in range(STACKED)
    ]
    scene.subjects += [customer.id, subscription.id]
    scene.description = f"a renewal of {owed} {customer.currency} carried a credit of {-each} {STACKED} times"
    world.at(scene.at, lambda at: _note(scene, renew(world, subscriber, at)))


def _note(scene: Scene, invoice: Invoice | None) -> None:
    if invoice is not None:
        scene.evidence.append(invoice.id)
