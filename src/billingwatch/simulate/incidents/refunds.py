"""Money is given back: by mistake, to many, or very much of it."""

from __future__ import annotations

from functools import partial

from billingwatch.simulate.incidents.extras import days_before, pay, stranger
from billingwatch.simulate.incidents.scenes import Scene
from billingwatch.simulate.objects.payers import Payer
from billingwatch.simulate.objects.payments import Charge
from billingwatch.simulate.payments import dear_payment, dispute, refund
from billingwatch.simulate.people import local, usual_payment
from billingwatch.simulate.seasons import DAY, HOUR

SPIKE_LASTS = 6 * HOUR  # at most
BOUGHT_BEFORE = (2 * HOUR, 5 * DAY)  # seconds from a purchase to its refund
FEWEST = 6  # refunds that anybody would wonder about
LARGE = (12, 80)  # times the usual payment
DEAR = (1.5, 10)  # times what nearly all payments stay below: where large plans are sold, twelve small ones are nothing special
DISPUTED_AFTER = (2 * DAY, 12 * DAY)
DISPUTED_AMOUNT = (1, 20)  # times the usual payment


def refund_everybody(scene: Scene) -> None:
    """Let a script give back many recent purchases within hours, in full."""
    world, rng = scene.world, scene.rng
    profile = world.profile
    payments_per_day = profile.purchases_per_day + profile.customers * profile.subscribed / 30
    count = round(FEWEST + scene.between(2, 6) * profile.refunds * payments_per_day + scene.between(0, 18))
    lasts, currency = int(scene.between(SPIKE_LASTS - 60, HOUR)), profile.currencies[0]
    scene.description, scene.since = f"{count} purchases given back within {lasts // 60} minutes", scene.at
    for number in range(count):
        bought_at = days_before(scene, *BOUGHT_BEFORE)
        back_at = scene.at + (0 if number == 0 else rng.randrange(lasts))
        amount = local(rng.choice(profile.items), currency)
        world.at(bought_at, partial(_buy, scene, stranger(scene, bought_at), amount, back_at))


def refund_much(scene: Scene) -> None:
    """Give back one payment that is many times what is usual here."""
    world = scene.world
    currency = world.profile.currencies[0]
    amount = round(usual_payment(world, currency) * scene.between(*LARGE) * scene.rng.uniform(1, 1.2))
    bought_at = days_before(scene, *BOUGHT_BEFORE)
    scene.since = scene.at
    world.at(bought_at, partial(_buy_much, scene, stranger(scene, bought_at), amount))


def be_disputed(scene: Scene) -> None:
    """Let one payment be disputed by its bank."""
    world = scene.world
    currency = world.profile.currencies[0]
    amount = round(usual_payment(world, currency) * scene.between(*DISPUTED_AMOUNT))
    bought_at, payer = days_before(scene, *DISPUTED_AFTER), stranger(scene, scene.at)
    scene.description = f"{amount} {currency} disputed"
    world.at(bought_at, lambda at: _sold(scene, pay(scene, payer, amount, currency, at)))


def _buy_much(scene: Scene, payer: Payer, amount: int, when: int) -> None:
    currency = scene.world.profile.currencies[0]
    amount = max(amount, round(dear_payment(scene.world, currency) * scene.between(*DEAR)))
    scene.description = f"{amount} {currency} given back at once"
    _buy(scene, payer, amount, scene.at, when)


def _buy(scene: Scene, payer: Payer, amount: int, back_at: int, when: int) -> None:
    charge = pay(scene, payer, amount, scene.world.profile.currencies[0], when)
    scene.world.at(back_at, partial(_give_back, scene, charge))


def _give_back(scene: Scene, charge: Charge, when: int) -> None:
    given = refund(scene.world, charge, charge.amount, when, scene.rng)
    if given is not None:
        scene.evidence += [given.id, charge.id]


def _sold(scene: Scene, charge: Charge) -> None:
    scene.subjects.append(charge.id)
    scene.world.at(scene.at, lambda at: scene.evidence.append(dispute(scene.world, charge, at, scene.rng, "product_not_received").id))
