"""The life of a subscription: signed up, renewed, changed, cancelled."""

from __future__ import annotations

from random import Random

import msgspec

from billingwatch.simulate.billing import Subscriber, draft, end, finalize, item_line, period_text, subscription_line, void
from billingwatch.simulate.cards import follow_card
from billingwatch.simulate.objects.discounts import Discount
from billingwatch.simulate.objects.invoices import Invoice, Line
from billingwatch.simulate.objects.payers import Customer, PaymentMethod
from billingwatch.simulate.objects.subscriptions import Interval, Price, Subscription
from billingwatch.simulate.people import new_payer, pick_currency, price
from billingwatch.simulate.seasons import DAY, HOUR, moment, months_later
from billingwatch.simulate.world import Truth, World

COUPONS = 0.1  # share of sign-ups with 20 % off
UPGRADES = 0.65  # share of changes that cost more
INVOICED_AT_ONCE = 0.7  # share of changes whose prorations do not wait for the next invoice
ONE_SEAT = 0.7  # share of subscriptions
BY_QUANTITY = 0.4  # share of changes that keep the price
MONTHS: dict[Interval, int] = {"month": 1, "year": 12}
NOTICE = 0.7  # share of cancellations that take effect when the period ends
CHEAPEST_MORE_OFTEN = 2.0
TRIAL, TRIAL_WARNING = 14 * DAY, 3 * DAY
TRIES_ONLY = 0.4  # share of trials that nobody pays for afterwards
PAUSED_FOR = (10 * DAY, 70 * DAY)


def new_customer(world: World, created: int, rng: Random, currency: str | None = None) -> Customer:
    currency = currency or pick_currency(rng, world.profile.currencies)
    payer = new_payer(world, rng, created, currency)
    return Customer(
        id=payer.customer or "",
        payer=payer,
        currency=currency,
        created=created,
        default_payment_method=payer.card.payment_method,
        invoice_prefix=f"{rng.getrandbits(32):08X}",
        invoice_sequence=rng.randrange(1, 30),
    )


def new_subscriber(
    world: World, customer: Customer, created: int, rng: Random, *, now: int, interval: Interval | None = None
) -> Subscriber:
    """Subscribe a customer to something; before `now`, they have paid every period."""
    profile = world.profile
    interval = interval or ("year" if rng.random() < profile.yearly else "month")
    tier = int(len(profile.prices) * rng.random() ** CHEAPEST_MORE_OFTEN)
    subscription_id = world.new_id("sub_1", created, rng)
    discount = None
    if rng.random() < COUPONS:
        discount = Discount(id=world.new_id("di_1", created, rng), customer=customer.id, subscription=subscription_id, start=created)
    months, anchor_day, periods = MONTHS[interval], moment(created).day, 1
    while (period_end := months_later(created, periods * months, anchor_day)) <= now:
        periods += 1
    subscription = Subscription(
        id=subscription_id,
        item_id=world.short_id("si_", rng),
        customer=customer.id,
        price=price(world, tier, customer.currency, interval),
        quantity=1 if rng.random() < ONE_SEAT else rng.randrange(2, 9),
        status="incomplete" if now == created else "active",
        created=created,
        period_start=months_later(created, (periods - 1) * months, anchor_day),
        period_end=period_end,
        default_payment_method=customer.default_payment_method,
        discount=discount,
        metadata={"workspace": f"ws_{rng.getrandbits(32):08x}"},
    )
    return Subscriber(customer=customer, subscription=subscription, anchor_day=anchor_day)


def second_subscription(world: World, first: Subscriber, seconds_later: int, rng: Random) -> Subscriber:
    """Give a customer the same subscription once more, renewing within the same minute."""
    subscription = first.subscription
    subscription.discount = None
    same = msgspec.structs.replace(
        subscription,
        id=world.new_id("sub_1", subscription.created, rng),
        item_id=world.short_id("si_", rng),
        created=subscription.created + seconds_later,
        period_start=subscription.period_start + seconds_later,
        period_end=subscription.period_end + seconds_later,
        metadata={"workspace": f"ws_{rng.getrandbits(32):08x}"},
    )
    return Subscriber(customer=first.customer, subscription=same, anchor_day=first.anchor_day)


def sign_up(world: World, when: int, rng: Random) -> None:
    """Bring in a new customer, with a subscription from the first minute."""
    customer = new_customer(world, when, rng)
    world.customers.append(customer)
    world.emit("customer.created", customer, when, by_api=True)
    world.emit("payment_method.attached", PaymentMethod(payer=customer.payer, created=when), when + 1, by_api=True)
    subscribed_at = when + 2
    subscriber = new_subscriber(world, customer, subscribed_at, rng, now=subscribed_at)
    subscription = subscriber.subscription
    lines = (subscription_line(world, subscriber, rng, subscribed_at),)
    if world.rng("trial", subscription.id).random() < world.profile.trials:
        lines = (_on_trial(world, subscriber, lines[0], subscribed_at),)
    if subscription.discount is not None:
        world.emit("customer.discount.created", subscription.discount, subscribed_at, by_api=True)
    invoice = draft(world, subscriber, lines, "subscription_create", subscribed_at, rng, subscribed_at)
    world.emit("customer.subscription.created", subscription, subscribed_at, by_api=True)
    finalize(world, subscriber, invoice, subscribed_at, rng)
    _live(world, subscriber, subscribed_at, rng)
    follow_card(world, customer, [subscriber], subscribed_at)


def _on_trial(world: World, subscriber: Subscriber, line: Line, when: int) -> Line:
    """Let the first two weeks cost nothing; many do not stay."""
    subscription, rng = subscriber.subscription, world.rng("on trial", subscriber.subscription.id)
    ends = when + TRIAL
    subscription.status, subscription.trial_end, subscription.period_end = "trialing", ends, ends
    subscriber.anchor_day = moment(ends).day
    world.at(ends - TRIAL_WARNING, lambda at: world.emit("customer.subscription.trial_will_end", subscription, at))
    if rng.random() < TRIES_ONLY:
        world.at(when + rng.randrange(HOUR, TRIAL), lambda at: cancel(world, subscriber, at, at_period_end=True))
    description = f"Trial period for {subscription.price.nickname}"
    return msgspec.structs.replace(line, amount=0, discount=0, tax=0, description=description, period_end=ends)


def pause(world: World, subscriber: Subscriber, when: int, resumes_at: int) -> None:
    """Collect nothing until then; the subscription goes on, and its invoices are void."""
    subscription = subscriber.subscription
    if subscription.status != "active" or subscription.cancel_at_period_end or subscription.resumes_at is not None:
        return
    before = world.look(subscription)
    subscription.resumes_at = resumes_at
    world.changed("customer.subscription.updated", subscription, before, when, by_api=True)
    world.at(resumes_at, lambda at: _resume(world, subscriber, at))


def _resume(world: World, subscriber: Subscriber, when: int) -> None:
    subscription = subscriber.subscription
    if subscription.ended_at is None:
        before = world.look(subscription)
        subscription.resumes_at = None
        world.changed("customer.subscription.updated", subscription, before, when)


def carry_on(world: World, subscriber: Subscriber) -> None:
    """Take up a subscription that began before the stream does."""
    _live(world, subscriber, world.start, world.rng("cycle", subscriber.subscription.id, "before"))


def renew(world: World, subscriber: Subscriber, when: int) -> Invoice | None:
    """Begin the next period; None if there is none."""
    subscription = subscriber.subscription
    if subscription.ended_at is not None or when < subscription.period_end or subscriber.stalled == "unbilled":
        return None
    if subscription.cancel_at_period_end:
        end(world, subscriber, when, "cancellation_requested")
        return None
    rng = world.rng("cycle", subscription.id, subscriber.cycles)
    subscriber.cycles += 1
    before = world.look(subscription)
    previous_start, subscription.period_start = subscription.period_start, subscription.period_end
    subscription.period_end = months_later(subscription.period_end, MONTHS[subscription.price.interval], subscriber.anchor_day)
    paused = subscription.resumes_at is not None
    lines = (subscription_line(world, subscriber, rng, when), *(() if paused else subscriber.waiting))
    if not paused:
        subscriber.waiting.clear()
    subscriber.misbilled = None
    if subscription.status == "trialing":
        subscription.status = "active"
    invoice = draft(world, subscriber, lines, "subscription_cycle", when, rng, previous_start)
    world.changed("customer.subscription.updated", subscription, before, when)
    if subscriber.stalled == "draft":
        return invoice
    if subscription.resumes_at is not None:
        world.at(when + HOUR, lambda at: void(world, invoice, at))
        _live(world, subscriber, when, rng)
        return invoice
    # A draft stays open to changes for about an hour; what one customer owes then falls due together.
    wait = HOUR + world.rng("finalize", subscription.customer, when // HOUR).randrange(5, 600)
    world.at(when + wait, lambda at: finalize(world, subscriber, invoice, at, rng))
    _live(world, subscriber, when, rng)
    return invoice


def change(world: World, subscriber: Subscriber, to: Price, quantity: int, when: int, rng: Random, *, at_once: bool) -> None:
    """Move to another price or quantity; the rest of the period is credited and charged anew."""
    subscription = subscriber.subscription
    if subscription.status != "active" or subscription.cancel_at_period_end:
        return
    left = (subscription.period_end - when) / (subscription.period_end - subscription.period_start)
    unused = round(subscription.price.unit_amount * subscription.quantity * left)
    day = period_text(when)
    credit = item_line(world, subscriber, rng, when, -unused, f"Unused time on {subscription.price.nickname} after {day}", proration=True)
    before, was = world.look(subscription), subscription.price.unit_amount * subscription.quantity
    subscription.price, subscription.quantity = to, quantity
    fallen = was - to.unit_amount * quantity
    if fallen > 0:
        world.note(
            Truth(
                detector="plan_downgrade",
                description=f"a subscription fell by {fallen} {to.currency} a {to.interval}",
                started_at=when,
                ended_at=when,
                evidence=[subscription.id],
                subjects=[subscription.customer],
            )
        )
    remaining = round(to.unit_amount * quantity * left)
    debit = item_line(world, subscriber, rng, when, remaining, f"Remaining time on {to.nickname} after {day}", proration=True)
    if not at_once:
        subscriber.waiting += [credit, debit]
        world.changed("customer.subscription.updated", subscription, before, when, by_api=True)
        return
    invoice = draft(world, subscriber, (credit, debit), "subscription_update", when, rng, when)
    world.changed("customer.subscription.updated", subscription, before, when, by_api=True)
    finalize(world, subscriber, invoice, when, rng)


def cancel(world: World, subscriber: Subscriber, when: int, *, at_period_end: bool) -> None:
    subscription = subscriber.subscription
    if subscription.ended_at is not None:
        return
    if not at_period_end:
        end(world, subscriber, when, "cancellation_requested")
        return
    before = world.look(subscription)
    subscription.cancel_at_period_end, subscription.canceled_at = True, when
    subscription.cancellation_reason = "cancellation_requested"
    world.changed("customer.subscription.updated", subscription, before, when, by_api=True)


def _live(world: World, subscriber: Subscriber, now: int, rng: Random) -> None:
    """Put on the agenda what this period brings, its end included."""
    period_end = subscriber.subscription.period_end
    world.at(period_end, lambda at: renew(world, subscriber, at))
    if subscriber.steady:
        return
    months = max(0.0, (period_end - now) / (30 * DAY))
    changes, leaves, pauses, moment_of_it = rng.random(), rng.random(), rng.random(), now + int((period_end - now) * rng.random())
    if changes < world.profile.changes * months:
        _plan_change(world, subscriber, moment_of_it, rng)
    if pauses < world.profile.pauses * months:
        resumes_at = moment_of_it + rng.randrange(*PAUSED_FOR)
        world.at(moment_of_it, lambda at: pause(world, subscriber, at, resumes_at))
    if leaves < world.profile.churn * months:
        at_period_end = rng.random() < NOTICE
        world.at(moment_of_it, lambda at: cancel(world, subscriber, at, at_period_end=at_period_end))


def _plan_change(world: World, subscriber: Subscriber, when: int, rng: Random) -> None:
    subscription, prices = subscriber.subscription, world.profile.prices
    up, at_once, by_quantity = rng.random() < UPGRADES, rng.random() < INVOICED_AT_ONCE, rng.random() < BY_QUANTITY
    currency, interval = subscription.price.currency, subscription.price.interval
    tier = next(place for place in range(len(prices)) if price(world, place, currency, interval).id == subscription.price.id)
    quantity = subscription.quantity
    if by_quantity or not 0 <= tier + (1 if up else -1) < len(prices):
        quantity = quantity + 1 if up or quantity == 1 else quantity - 1
    else:
        tier += 1 if up else -1
    to = price(world, tier, currency, interval)
    world.at(when, lambda at: change(world, subscriber, to, quantity, at, rng, at_once=at_once))
