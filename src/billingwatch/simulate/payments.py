"""Attempts at a payment, and what comes of them: second tries, refunds, disputes, early fraud warnings."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from billingwatch.simulate.objects.declines import EXPIRED, Decline
from billingwatch.simulate.objects.disputes import Dispute, EarlyFraudWarning
from billingwatch.simulate.objects.payers import Payer
from billingwatch.simulate.objects.payments import Charge, PaymentIntent, Refund
from billingwatch.simulate.seasons import DAY, HOUR
from billingwatch.simulate.world import Given, Truth, World

RETRY_DECLINES = 0.35  # share of second tries, by a customer at the till, that fail too
TRIES_MAX = 3
EXPIRED_REFUSED = 0.7  # share of payments with an expired card; networks let the rest pass
NEARLY_ALL = 0.97  # share of payments that a dear one exceeds
LARGE = (12, 1.5)  # from so many median payments, and so many dear ones, a refund stands out in any account
ARGUABLE = (4, 0.75)  # from here on people would not agree, whose prices are so far apart that no median is the only one
COMPARABLE, OFTEN = 1.5, 3  # what is given back that often, to within a factor, stands out to no one
KNOWN_AFTER = 14 * DAY  # of a stream; nobody can know earlier what is usual
APART = 30 * 60  # seconds; sooner, nothing would tell a second purchase without an order id from a double submit
TRIES_AGAIN = 0.6  # share of customers that try again
AUTHENTICATED = 0.2  # share of European purchases that ask for 3-D Secure
EUROPEAN = frozenset({"eur", "gbp"})
PARTIAL = 0.3  # share of refunds that give back a part
INQUIRIES = 0.3  # share of disputes that begin and end as a question
WON = 0.35
WARNED_REFUNDED, WARNED_DISPUTED = 0.5, 0.3  # shares of charges with an early fraud warning
FRAUD_TYPES = ("made_with_stolen_card", "made_with_lost_card", "unauthorized_use_of_card", "card_never_received", "misc")
DISPUTE_REASONS = ("fraudulent", "product_not_received", "subscription_canceled", "product_unacceptable", "credit_not_processed", "general")


def checkout(
    world: World, payer: Payer, amount: int, currency: str, when: int, rng: Random, *, order_id: str | None = None, pause: int | None = None
) -> None:
    """Begin a purchase; the card is tried `pause` seconds later, or when the customer has typed it in.

    Nobody buys anything without an order id minutes after another purchase: by chance alone they would, now and then.
    """
    buyer = payer.customer or payer.email
    if order_id is None and when - world.bought_at.get(buyer, when - APART) < APART:
        return
    world.bought_at[buyer] = when
    intent = order(world, payer, amount, currency, when, rng, order_id)
    pay_at = when + (rng.randrange(15, 150) if pause is None else pause)
    if pause is None and currency in EUROPEAN and rng.random() < AUTHENTICATED:
        world.at(pay_at, lambda at: _authenticate(world, intent, at))
        pay_at += rng.randrange(20, 60)
    world.at(pay_at, lambda at: _pay(world, intent, at, rng, tries=1))


def order(world: World, payer: Payer, amount: int, currency: str, when: int, rng: Random, order_id: str | None) -> PaymentIntent:
    """Order something, which nobody has tried to pay yet."""
    intent = PaymentIntent(
        id=world.new_id("pi_3", when, rng),
        amount=amount,
        currency=currency,
        created=when,
        payer=payer,
        description="Order" if order_id is None else f"Order {order_id}",
        metadata={} if order_id is None else {"order_id": order_id},
    )
    world.emit("payment_intent.created", intent, when, by_api=True)
    return intent


def attempt(world: World, intent: PaymentIntent, when: int, rng: Random, rate: float) -> Charge:
    """Try the card; `rate` is the share of such attempts that fail on an ordinary day."""
    decline, outage = world.decide(rng, when, rate)
    if decline is None and intent.payer.card.expired(when) and world.rng("expired", intent.id, when).random() < EXPIRED_REFUSED:
        decline = EXPIRED
    charge = conclude(world, intent, when, rng, decline)
    if outage is not None:
        outage.charges.append(charge.id)
    return charge


def conclude(world: World, intent: PaymentIntent, when: int, rng: Random, decline: Decline | None, risk_score: int | None = None) -> Charge:
    """Record an attempt whose outcome is known."""
    if risk_score is None:
        risk_score = 85 if decline and decline.blocked else min(64, int(rng.expovariate(1 / 16)))
    charge = Charge(
        id=world.new_id("ch_3", when, rng),
        amount=intent.amount,
        currency=intent.currency,
        created=when,
        payer=intent.payer,
        payment_intent=intent.id,
        invoice=intent.invoice,
        description=intent.description,
        metadata=intent.metadata,
        decline=decline,
        risk_score=risk_score,
    )
    intent.latest_charge, intent.decline = charge.id, decline
    by_api = intent.invoice is None
    if decline is None:
        intent.status = "succeeded"
        world.paid[charge.currency].append(charge.amount)
        world.emit("charge.succeeded", charge, when, by_api=by_api)
        world.emit("payment_intent.succeeded", intent, when, by_api=by_api)
    else:
        intent.status = "requires_payment_method"
        world.emit("charge.failed", charge, when, by_api=by_api)
        world.emit("payment_intent.payment_failed", intent, when, by_api=by_api)
    return charge


def aftermath(world: World, charge: Charge, when: int, rng: Random) -> None:
    """Decide what a paid charge has coming."""
    refunds, disputes, warnings = rng.random(), rng.random(), rng.random()
    if refunds < world.profile.refunds:
        world.at(when + rng.randrange(HOUR, 14 * DAY), lambda at: _give_back(world, charge, at, rng))
    if disputes < world.profile.disputes:
        reason, inquiry = rng.choice(DISPUTE_REASONS), rng.random() < INQUIRIES
        world.at(when + rng.randrange(3 * DAY, 35 * DAY), lambda at: dispute(world, charge, at, rng, reason, inquiry=inquiry))
    elif warnings < world.profile.disputes / 2:
        world.at(when + rng.randrange(6 * HOUR, 12 * DAY), lambda at: _lone_warning(world, charge, at, rng))


def refund(
    world: World, charge: Charge, amount: int, when: int, rng: Random, reason: str | None = "requested_by_customer"
) -> Refund | None:
    """Give back `amount`, or what is left of the charge."""
    amount = min(amount, charge.amount - charge.amount_refunded)
    if amount <= 0:
        return None
    given = Refund(
        id=world.new_id("re_3", when, rng),
        amount=amount,
        currency=charge.currency,
        created=when,
        charge=charge.id,
        payment_intent=charge.payment_intent,
        payer=charge.payer,
        reason=reason,
    )
    world.emit("refund.created", given, when, by_api=True)
    before = world.look(charge)
    charge.amount_refunded += amount
    world.changed("charge.refunded", charge, before, when, by_api=True)
    world.given.append(
        Given(
            refund=given.id,
            amount=amount,
            currency=charge.currency,
            paid=charge.amount,
            created=when,
            subjects=[charge.id, *filter(None, [charge.payer.customer])],
        )
    )
    return given


def note_large_refunds(world: World) -> None:
    """Tell, with hindsight, which refunds were far larger than what is paid here: a price list does not say what people buy of it."""
    for given in world.given:
        others = sorted(world.paid[given.currency])
        if given.paid in others:
            others.remove(given.paid)
        if not others:
            continue
        median, dear = share_below(others, 0.5), share_below(others, NEARLY_ALL)
        alike = sum(other.currency == given.currency and other.amount * COMPARABLE >= given.amount for other in world.given) - 1
        if given.amount >= ARGUABLE[0] * median and given.amount > ARGUABLE[1] * dear:
            world.note(
                Truth(
                    detector="large_refund",
                    description=f"{given.amount} {given.currency} given back at once",
                    started_at=given.created,
                    evidence=[given.refund],
                    subjects=given.subjects,
                    arguable=given.amount < LARGE[0] * median
                    or given.amount < LARGE[1] * dear
                    or alike >= OFTEN
                    or given.created < world.start + KNOWN_AFTER,
                )
            )


def dear_payment(world: World, currency: str) -> int:
    """Give what nearly all payments in a currency have stayed below so far."""
    paid = world.paid[currency]
    return share_below(sorted(paid), NEARLY_ALL) if paid else 0


def share_below(ordered: Sequence[int], share: float) -> int:
    """Give the amount that this share of them does not exceed."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def dispute(world: World, charge: Charge, when: int, rng: Random, reason: str, *, inquiry: bool = False) -> Dispute:
    """Dispute a charge; the bank decides weeks later."""
    raised = Dispute(
        id=world.new_id("du_1", when, rng),
        amount=charge.amount,
        currency=charge.currency,
        created=when,
        charge=charge.id,
        payment_intent=charge.payment_intent,
        reason=reason,
        status="warning_needs_response" if inquiry else "needs_response",
        brand=charge.payer.card.brand,
        email=charge.payer.email,
    )
    charge.disputed = True
    world.emit("charge.dispute.created", raised, when)
    if not inquiry:
        world.emit("charge.dispute.funds_withdrawn", raised, when)
    world.note(
        Truth(
            detector="dispute_opened",
            description=f"{'an inquiry about' if inquiry else 'a dispute of'} {raised.amount} {raised.currency}, {reason}",
            started_at=when,
            evidence=[raised.id],
            subjects=[charge.id, *filter(None, [charge.payer.customer])],
        )
    )
    world.at(when + rng.randrange(10 * DAY, 40 * DAY), lambda at: _decide_dispute(world, raised, at, rng))
    return raised


def warn(world: World, charge: Charge, when: int, rng: Random) -> EarlyFraudWarning:
    """Pass on a bank's early fraud warning."""
    warning = EarlyFraudWarning(
        id=world.new_id("issfr_1", when, rng),
        created=when,
        charge=charge.id,
        payment_intent=charge.payment_intent,
        fraud_type=rng.choice(FRAUD_TYPES),
        actionable=charge.amount_refunded < charge.amount and not charge.disputed,
    )
    world.emit("radar.early_fraud_warning.created", warning, when)
    return warning


def _authenticate(world: World, intent: PaymentIntent, when: int) -> None:
    intent.status = "requires_action"
    world.emit("payment_intent.requires_action", intent, when, by_api=True)


def _pay(world: World, intent: PaymentIntent, when: int, rng: Random, *, tries: int) -> None:
    charge = attempt(world, intent, when, rng, world.profile.declines if tries == 1 else RETRY_DECLINES)
    if charge.decline is None:
        aftermath(world, charge, when, rng)
    elif tries < TRIES_MAX and rng.random() < TRIES_AGAIN:
        world.at(when + rng.randrange(30, 240), lambda at: _pay(world, intent, at, rng, tries=tries + 1))


def _give_back(world: World, charge: Charge, when: int, rng: Random) -> None:
    if rng.random() >= PARTIAL:
        refund(world, charge, charge.amount, when, rng)
        return
    part = max(1, charge.amount * rng.choice((10, 20, 25, 50)) // 100)
    refund(world, charge, part, when, rng)
    if rng.random() < PARTIAL:
        world.at(when + rng.randrange(HOUR, 3 * DAY), lambda at: refund(world, charge, part, at, rng))


def _decide_dispute(world: World, raised: Dispute, when: int, rng: Random) -> None:
    before = world.look(raised)
    won = rng.random() < WON
    raised.status = "warning_closed" if raised.inquiry else "won" if won else "lost"
    world.changed("charge.dispute.closed", raised, before, when)
    if raised.status == "won":
        world.emit("charge.dispute.funds_reinstated", raised, when)


def _lone_warning(world: World, charge: Charge, when: int, rng: Random) -> None:
    warn(world, charge, when, rng)
    then, later = rng.random(), when + rng.randrange(HOUR, DAY)
    if then < WARNED_REFUNDED:
        world.at(later, lambda at: refund(world, charge, charge.amount, at, rng, reason="fraudulent"))
    elif then < WARNED_REFUNDED + WARNED_DISPUTED:
        world.at(later + rng.randrange(DAY, 12 * DAY), lambda at: dispute(world, charge, at, rng, "fraudulent"))
