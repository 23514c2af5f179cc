"""Customers are charged in a currency that is not theirs."""

from __future__ import annotations

from functools import partial

from billingwatch.simulate.incidents.extras import days_before, pay
from billingwatch.simulate.incidents.scenes import Scene
from billingwatch.simulate.objects.payers import Payer
from billingwatch.simulate.people import RATES, local, new_payer, pick_currency
from billingwatch.simulate.seasons import DAY, HOUR

MISMATCH_LASTS = HOUR
BOUGHT_BEFORE = (2 * HOUR, 20 * DAY)


def charge_in_another_currency(scene: Scene) -> None:
    """Let a checkout forget the currency of customers who have always paid in their own."""
    world, rng = scene.world, scene.rng
    victims, bought = round(scene.between(1, 8)), round(scene.between(3, 6))
    for number in range(victims):
        own = pick_currency(rng, world.profile.currencies)
        others = [code for code in world.profile.currencies if code != own] or [code for code in RATES if code != own]
        wrong, payer = rng.choice(others), new_payer(world, rng, scene.at - BOUGHT_BEFORE[1], own)
        for when in {days_before(scene, *BOUGHT_BEFORE) for _ in range(bought)}:
            world.at(when, partial(_buy, scene, payer, local(rng.choice(world.profile.items), own), own))
        # The number stays: nobody has converted it.
        amount, when = local(rng.choice(world.profile.items), own), scene.at + (0 if number == 0 else rng.randrange(HOUR))
        scene.subjects.append(payer.customer or "")
        world.at(when, partial(_charge, scene, payer, amount, wrong))
    scene.description = f"{victims} customers charged in a currency that is not theirs"


def _buy(scene: Scene, payer: Payer, amount: int, currency: str, when: int) -> None:
    pay(scene, payer, amount, currency, when)


def _charge(scene: Scene, payer: Payer, amount: int, currency: str, when: int) -> None:
    scene.evidence.append(pay(scene, payer, amount, currency, when).id)
