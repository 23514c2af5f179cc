"""Invoices: drafted, finalized, collected, tried again for days."""

from __future__ import annotations

from random import Random
from typing import Literal

import msgspec

from billingwatch.simulate.objects.invoices import TIMES, Invoice, InvoicePayment, Line
from billingwatch.simulate.objects.payers import Customer
from billingwatch.simulate.objects.payments import PaymentIntent
from billingwatch.simulate.objects.shapes import StripeObject
from billingwatch.simulate.objects.subscriptions import Price, Subscription
from billingwatch.simulate.payments import RETRY_DECLINES, TRIES_MAX, aftermath, attempt, conclude
from billingwatch.simulate.people import TAX_PERCENT, display
from billingwatch.simulate.seasons import DAY, HOUR, moment
from billingwatch.simulate.world import Truth, World

RETRY_DAYS = (1, 3, 5)  # after the first attempt
DUNNING_DECLINES = 0.45  # share of those retries that fail; about nine in ten invoices recover
INCOMPLETE_FOR = 23 * HOUR  # how long a subscription waits for its first payment
DESCRIPTIONS = {
    "subscription_create": "Subscription creation",
    "subscription_cycle": "Subscription update",
    "subscription_update": "Subscription update",
}


class Subscriber(msgspec.Struct, kw_only=True):
    """A subscription, who has it, and what waits for its next invoice."""

    customer: Customer
    subscription: Subscription
    anchor_day: int
    cycles: int = 0
    waiting: list[Line] = msgspec.field(default_factory=list)
    """Invoice items without an invoice yet."""
    steady: bool = False
    """Whether it does nothing of itself but pay."""
    refused: bool = False
    """Whether every attempt to collect fails."""
    misbilled: tuple[Price, int] | None = None
    """Price and quantity that the next invoice has instead of the subscription's."""
    stalled: Literal["unbilled", "draft"] | None = None
    """Whether its next invoice never comes, or is never finalized."""


def subscription_line(world: World, subscriber: Subscriber, rng: Random, created: int) -> Line:
    """Charge for the period that the subscription is in now."""
    subscription = subscriber.subscription
    price, quantity = subscriber.misbilled or (subscription.price, subscription.quantity)
    amount = price.unit_amount * quantity
    off = amount * subscription.discount.percent_off // 100 if subscription.discount else 0
    return Line(
        id=world.new_id("il_1", created, rng),
        description=f"{quantity} {TIMES} {price.nickname} (at {display(price.unit_amount, price.currency)} / {price.interval})",
        amount=amount,
        discount=off,
        tax=tax(amount - off, price.currency),
        price=price,
        quantity=quantity,
        period_start=subscription.period_start,
        period_end=subscription.period_end,
        subscription=subscription.id,
        subscription_item=subscription.item_id,
    )


def item_line(
    world: World, subscriber: Subscriber, rng: Random, created: int, amount: int, description: str, *, proration: bool = False
) -> Line:
    """Add or credit something besides the subscription's price; a credit has a negative amount."""
    subscription = subscriber.subscription
    return Line(
        id=world.new_id("il_1", created, rng),
        description=description,
        amount=amount,
        tax=tax(amount, subscription.price.currency),
        price=subscription.price,
        quantity=subscription.quantity if proration else 1,
        period_start=created,
        period_end=subscription.period_end if proration else created,
        subscription=subscription.id,
        subscription_item=subscription.item_id if proration else None,
        invoice_item=world.new_id("ii_1", created, rng),
        proration=proration,
    )


def tax(amount: int, currency: str) -> int:
    """Give the tax on a net amount, rounded half up."""
    return (amount * TAX_PERCENT.get(currency, 0) + 50) // 100


def draft(
    world: World,
    subscriber: Subscriber,
    lines: tuple[Line, ...],
    reason: str,
    when: int,
    rng: Random,
    period_start: int,
    period_end: int | None = None,
) -> Invoice:
    subscription, customer = subscriber.subscription, subscriber.customer
    invoice = Invoice(
        id=world.new_id("in_1", when, rng),
        customer=customer,
        subscription=subscription.id,
        subscription_metadata=subscription.metadata,
        lines=lines,
        currency=subscription.price.currency,
        billing_reason=reason,
        created=when,
        period_start=period_start,
        period_end=when if period_end is None else period_end,
        discount=subscription.discount,
        starting_balance=customer.balance,
        next_payment_attempt=when + HOUR,
    )
    subscription.latest_invoice = invoice.id
    world.emit("invoice.created", invoice, when)
    return invoice


def finalize(world: World, subscriber: Subscriber, invoice: Invoice, when: int, rng: Random) -> None:
    """Number it, settle it with the customer's balance, and collect what is left."""
    customer = subscriber.customer
    invoice.number = f"{customer.invoice_prefix}-{customer.invoice_sequence:04d}"
    customer.invoice_sequence += 1
    invoice.starting_balance, invoice.finalized_at, invoice.status = customer.balance, when, "open"
    intent = _intent(world, invoice, when, rng) if invoice.amount_due else None
    if intent is None:
        invoice.status, invoice.paid_at, invoice.next_payment_attempt = "paid", when, None
    world.emit("invoice.finalized", invoice, when)
    if invoice.ending_balance is not None and invoice.ending_balance != customer.balance:
        before = world.look(customer)
        customer.balance = invoice.ending_balance
        world.changed("customer.updated", customer, before, when)
    if intent is None:
        world.emit("invoice.paid", invoice, when)
        world.emit("invoice.payment_succeeded", invoice, when)
        _become(world, subscriber, "active", when)
    else:
        world.emit("payment_intent.created", intent, when)
        collect(world, subscriber, invoice, intent, when + rng.randrange(3), rng)


def collect(world: World, subscriber: Subscriber, invoice: Invoice, intent: PaymentIntent, when: int, rng: Random, retry: int = 0) -> None:
    """Try to be paid, and plan the next try."""
    subscription = subscriber.subscription
    if subscription.ended_at is not None:
        return
    first = subscription.status == "incomplete"
    again: int | None
    rate = 1.0 if subscriber.refused else world.profile.declines if retry == 0 else RETRY_DECLINES if first else DUNNING_DECLINES
    intent.payer = subscriber.customer.payer  # whose card may be another one since the last try
    before = world.look(invoice)
    pays = subscriber.steady and not subscriber.refused
    charge = conclude(world, intent, when, rng, None) if pays else attempt(world, intent, when, rng, rate)
    invoice.attempt_count, invoice.charge = retry + 1, charge.id
    if charge.decline is None:
        _paid(world, subscriber, invoice, intent, when, rng, before)
        if not subscriber.steady:
            aftermath(world, charge, when, rng)
        return
    if first:
        invoice.next_payment_attempt = None
        again = when + rng.randrange(60, 200) if retry + 1 < TRIES_MAX else None
    else:
        again = (invoice.finalized_at or when) + RETRY_DAYS[retry] * DAY if retry < len(RETRY_DAYS) else None
        invoice.next_payment_attempt = again
    world.changed("invoice.updated", invoice, before, when)
    world.emit("invoice.payment_failed", invoice, when)
    if not first:
        _become(world, subscriber, "past_due", when)
    if again is not None:
        world.at(again, lambda at: collect(world, subscriber, invoice, intent, at, rng, retry + 1))
    elif first:
        world.at(invoice.created + INCOMPLETE_FOR, lambda at: _expire(world, subscriber, invoice, at))
    else:
        _give_up(world, subscriber, invoice, when)


def void(world: World, invoice: Invoice, when: int) -> None:
    """Let an invoice be worth nothing, as those of a paused subscription are."""
    invoice.status, invoice.finalized_at, invoice.voided_at, invoice.next_payment_attempt = "void", when, when, None
    invoice.starting_balance = 0
    world.emit("invoice.voided", invoice, when)


def end(world: World, subscriber: Subscriber, when: int, reason: str) -> None:
    """End a subscription for good."""
    subscription = subscriber.subscription
    if subscription.ended_at is not None:
        return
    subscription.status, subscription.ended_at, subscription.cancellation_reason = "canceled", when, reason
    subscription.canceled_at = subscription.canceled_at or when
    world.emit("customer.subscription.deleted", subscription, when, by_api=reason == "cancellation_requested")


def _intent(world: World, invoice: Invoice, when: int, rng: Random) -> PaymentIntent:
    intent = PaymentIntent(
        id=world.new_id("pi_3", when, rng),
        amount=invoice.amount_due,
        currency=invoice.currency,
        created=when,
        payer=invoice.customer.payer,
        invoice=invoice.id,
        description=DESCRIPTIONS[invoice.billing_reason],
        status="requires_confirmation",
    )
    invoice.payment_intent = intent.id
    return intent


def _paid(
    world: World, subscriber: Subscriber, invoice: Invoice, intent: PaymentIntent, when: int, rng: Random, before: StripeObject
) -> None:
    invoice.status, invoice.paid_at, invoice.next_payment_attempt = "paid", when, None
    world.changed("invoice.updated", invoice, before, when)
    world.emit("invoice.paid", invoice, when)
    world.emit("invoice.payment_succeeded", invoice, when)
    if world.profile.shape == "current":
        payment = InvoicePayment(
            id=world.new_id("inpay_1", when, rng),
            invoice=invoice.id,
            payment_intent=intent.id,
            amount=invoice.amount_due,
            currency=invoice.currency,
            created=invoice.finalized_at or when,
            paid_at=when,
        )
        world.emit("invoice_payment.paid", payment, when)
    _become(world, subscriber, "active", when)


def _become(world: World, subscriber: Subscriber, status: str, when: int) -> None:
    subscription, customer = subscriber.subscription, subscriber.customer
    if subscription.ended_at is not None or subscription.status in {status, "trialing"}:
        return
    before, owner = world.look(subscription), world.look(customer)
    subscription.status, customer.delinquent = status, status == "past_due"
    world.changed("customer.subscription.updated", subscription, before, when)
    if owner["delinquent"] != customer.delinquent:
        world.changed("customer.updated", customer, owner, when)


def _expire(world: World, subscriber: Subscriber, invoice: Invoice, when: int) -> None:
    subscription = subscriber.subscription
    before = world.look(subscription)
    subscription.status, subscription.ended_at, subscription.canceled_at = "incomplete_expired", when, when
    world.changed("customer.subscription.updated", subscription, before, when)
    invoice.status, invoice.voided_at = "void", when
    world.emit("invoice.voided", invoice, when)


def _give_up(world: World, subscriber: Subscriber, invoice: Invoice, when: int) -> None:
    invoice.status, invoice.uncollectible_at = "uncollectible", when
    world.emit("invoice.marked_uncollectible", invoice, when)
    world.note(
        Truth(
            detector="payment_recovery",
            description=f"an invoice of {invoice.amount_due} {invoice.currency} was tried {invoice.attempt_count} times for nothing",
            started_at=when,
            evidence=[invoice.id],
            subjects=[subscriber.customer.id, subscriber.subscription.id],
        )
    )
    end(world, subscriber, when, "payment_failed")


def period_text(at: int) -> str:
    """Write a day as proration lines do."""
    return moment(at).strftime("%d %b %Y")
