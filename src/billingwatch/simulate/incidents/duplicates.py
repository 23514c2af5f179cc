"""One purchase, charged twice."""

from __future__ import annotations

from random import Random

from billingwatch.simulate.incidents.scenes import Scene
from billingwatch.simulate.objects.payers import Payer
from billingwatch.simulate.payments import conclude, order
from billingwatch.simulate.people import local, new_payer
from billingwatch.simulate.world import World

DUPLICATE_LASTS = 600  # seconds


def double_submit(scene: Scene) -> None:
    """Let a checkout without idempotency key take the same money twice; nothing tells the order."""
    _charge_twice(scene, order_id=None)


def double_order(scene: Scene) -> None:
    """Let two workers charge the same order."""
    _charge_twice(scene, order_id=f"{scene.rng.randrange(10**6, 10**7)}")


def _charge_twice(scene: Scene, order_id: str | None) -> None:
    world, rng = scene.world, scene.rng
    payer, currency = _somebody(world, rng, scene.at)
    amount = local(rng.choice(world.profile.items), currency)
    gap = max(1, int(scene.between(240, 4) * rng.uniform(0.8, 1.2)))
    scene.description = f"{amount} {currency} taken twice from {payer.customer or payer.email} within {gap} s"
    scene.subjects += [payer.customer] if payer.customer else [payer.card.fingerprint]
    for when in (scene.at, scene.at + gap):
        world.at(when, lambda at: _charge(scene, payer, amount, currency, at, order_id))


def _somebody(world: World, rng: Random, when: int) -> tuple[Payer, str]:
    if rng.random() < world.profile.guests or not world.customers:
        currency = world.profile.currencies[0]
        return new_payer(world, rng, when, currency, guest=True), currency
    customer = rng.choice(world.customers)
    return customer.payer, customer.currency


def _charge(scene: Scene, payer: Payer, amount: int, currency: str, when: int, order_id: str | None) -> None:
    world, rng = scene.world, scene.rng
    intent = order(world, payer, amount, currency, when, rng, order_id)
    scene.evidence.append(conclude(world, intent, when, rng, None).id)
