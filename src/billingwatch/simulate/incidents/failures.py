"""Payments fail that would have succeeded, or that nobody should have tried."""

from __future__ import annotations

from functools import partial

from billingwatch.simulate.business import purchase
from billingwatch.simulate.incidents.scenes import Scene
from billingwatch.simulate.objects.declines import BLOCKED, ISSUER_OUTAGE, PROCESSOR_OUTAGE, TESTED, Decline
from billingwatch.simulate.objects.payers import Payer
from billingwatch.simulate.objects.payments import PaymentIntent
from billingwatch.simulate.payments import conclude
from billingwatch.simulate.people import new_payer
from billingwatch.simulate.seasons import HOUR, arrivals
from billingwatch.simulate.world import Outage, weighted

OUTAGE_LASTS = 3 * HOUR  # at most
BY_ISSUERS = 0.6  # share of outages; the others are the processor's
# A quiet account in an outage has nothing to show. People come to buy (a sale) from an hour before to an hour after it.
RUSH_PER_HOUR = 30
TESTING_LASTS = HOUR
TESTED_CARDS = 6
WORKING, RADAR_BLOCKS = 0.04, 0.71  # shares of the attempts; banks refuse the rest
SMALLEST, LARGEST = 100, 499  # minor units; what card testers try


def outage(scene: Scene) -> None:
    """Let an issuer or a processor refuse a large share of payments for one to three hours."""
    world, rng = scene.world, scene.rng
    issuer = rng.random() < BY_ISSUERS
    lasts = int(HOUR + 2 * HOUR * rng.random()) - 60
    trouble = Outage(
        start=scene.at,
        end=scene.at + lasts,
        rate=scene.between(0.35, 0.9),
        declines=ISSUER_OUTAGE if issuer else PROCESSOR_OUTAGE,
        charges=scene.evidence,
    )
    world.outages.insert(0, trouble)  # before the wobbles of ordinary days, which are less
    scene.description = f"{'issuers' if issuer else 'the processor'} refused {trouble.rate:.0%} of payments for {lasts // 60} minutes"
    per_second = max(0.0, RUSH_PER_HOUR / HOUR - world.profile.purchases_per_day / 86_400)
    for number, when in enumerate(arrivals(rng, scene.at - HOUR, scene.at + lasts + HOUR, per_second)):
        world.at(when, partial(_rush, scene, number))


def test_cards(scene: Scene) -> None:
    """Try out stolen card numbers with small amounts; Radar blocks most of it, and banks most of the rest."""
    world, rng = scene.world, scene.rng
    count, lasts = int(scene.between(40, 260)), int(scene.between(1500, 300))
    currency = world.profile.currencies[0]
    payers = [new_payer(world, rng, scene.at, currency, guest=True) for _ in range(TESTED_CARDS)]
    fresh = list(payers)
    for when in sorted(scene.at + rng.randrange(lasts) for _ in range(count)):
        chance = rng.random()
        # A number that works is not tried again: it is sold.
        works = chance < WORKING and bool(fresh)
        payer = fresh.pop() if works else rng.choice(payers)
        decline = None if works else BLOCKED if chance < WORKING + RADAR_BLOCKS else weighted(rng.random(), TESTED)
        amount = rng.randint(SMALLEST, LARGEST)
        world.at(when, partial(_try_out, scene, payer, amount, decline))
    scene.subjects += [payer.card.fingerprint for payer in payers]
    scene.description = f"{count} small charges on {TESTED_CARDS} stolen cards within {lasts // 60} minutes, most of them blocked"


def _rush(scene: Scene, number: int, when: int) -> None:
    # Strangers: regular customers in such numbers would buy the same thing twice by chance.
    purchase(scene.world, when, scene.world.rng("rush", scene.at, number), guest=True)


def _try_out(scene: Scene, payer: Payer, amount: int, decline: Decline | None, when: int) -> None:
    world = scene.world
    intent = PaymentIntent(
        id=world.new_id("pi_3", when, scene.rng),
        amount=amount,
        currency=world.profile.currencies[0],
        created=when,
        payer=payer,
        description="Donation",
    )
    world.emit("payment_intent.created", intent, when, by_api=True)
    charge = conclude(world, intent, when + 1, scene.rng, decline, risk_score=88 if decline and decline.blocked else 60)
    if decline is not None:
        scene.evidence.append(charge.id)
