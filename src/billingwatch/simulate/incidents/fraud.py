"""Stolen cards that pass, until their owners notice."""

from __future__ import annotations

from functools import partial

from billingwatch.simulate.incidents.scenes import Scene
from billingwatch.simulate.objects.payments import Charge, PaymentIntent
from billingwatch.simulate.payments import conclude, dispute, warn
from billingwatch.simulate.people import local, new_payer
from billingwatch.simulate.seasons import DAY, HOUR

FRAUD_LASTS = 4 * DAY
BOUGHT_BEFORE = (DAY, 5 * DAY)  # seconds from the purchase to the first warning
WARNED_WITHIN = 12 * HOUR
DISPUTED = 0.7  # share of the warned charges that are disputed, too


def stolen_cards(scene: Scene) -> None:
    """Buy with many stolen cards; days later early fraud warnings come within hours, and disputes of the same charges after them."""
    world, rng = scene.world, scene.rng
    count = round(scene.between(4, 16))
    currency = world.profile.currencies[0]
    scene.description = f"{count} charges on stolen cards, warned about within {WARNED_WITHIN // HOUR} hours"
    for number in range(count):
        bought_at = max(world.start, scene.at - rng.randrange(*BOUGHT_BEFORE))
        warned_at = scene.at + (0 if number == 0 else rng.randrange(WARNED_WITHIN))
        payer = new_payer(world, rng, bought_at, currency, guest=True)
        amount = local(world.profile.items[-1 - rng.randrange(min(2, len(world.profile.items)))], currency)
        intent = PaymentIntent(
            id=world.new_id("pi_3", bought_at, rng), amount=amount, currency=currency, created=bought_at, payer=payer, description="Order"
        )
        world.at(bought_at, partial(_buy, scene, intent, warned_at))


def _buy(scene: Scene, intent: PaymentIntent, warned_at: int, when: int) -> None:
    world, rng = scene.world, scene.rng
    world.emit("payment_intent.created", intent, when, by_api=True)
    charge = conclude(world, intent, when + 1, rng, None, risk_score=rng.randrange(40, 74))
    scene.subjects.append(charge.id)
    world.at(warned_at, lambda at: scene.evidence.append(warn(world, charge, at, rng).id))
    if rng.random() < DISPUTED:
        world.at(warned_at + rng.randrange(6 * HOUR, 3 * DAY), lambda at: _dispute(scene, charge, at))


def _dispute(scene: Scene, charge: Charge, when: int) -> None:
    scene.evidence.append(dispute(scene.world, charge, when, scene.rng, "fraudulent").id)
