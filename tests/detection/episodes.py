"""What happens to a business, at random: episodes of some hours, days or weeks that give detectors something to see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from billingwatch.billing.rows import Row

from . import renewals
from .history import (
    DAY,
    Delivery,
    at,
    blocked,
    charge,
    customer,
    delivery,
    dispute,
    failed,
    invoice,
    item,
    payment_method,
    refund,
    replayed,
    subscription,
    unpaid,
    warning,
)

Happening = tuple[float, Row]  # when, in minutes, and what the event says


def failures(random: Random, name: str, start: float) -> Iterator[Happening]:
    """Payments within two hours, many of them failing, blocked, undecided for days, or tried again later."""
    account = random.choice((None, None, "acct_2"))
    for number in range(random.randint(4, 20)):
        key, minutes = f"{name}_{number}", start + 5 * random.randint(0, 24)
        fields: dict[str, Any] = {"account": account, "payment_id": f"pi_{key}", "currency": random.choice(("usd", "jpy"))}
        kind = random.choice((charge, charge, failed, failed, blocked))
        if random.random() < 0.2:
            debit = {**fields, "payment_method_type": "us_bank_account"}
            yield minutes, charge(key, minutes, status="pending", **debit)
            decided = minutes + random.uniform(0, 9) * DAY
            yield decided, kind(key, minutes, snapshot=2, updated=decided, **debit)
        else:
            yield minutes, kind(key, minutes, **fields)
        if random.random() < 0.5:
            # Often into the same or the next hour, where its first attempt may not have arrived yet.
            retried = minutes + random.choice((5, 30, 60, random.uniform(0, 2.9 * DAY)))
            yield retried, random.choice((charge, failed))(f"{key}_again", retried, **fields)


def purchases(random: Random, name: str, start: float) -> Iterator[Happening]:
    """One customer pays again and again, some of it for named orders, and gets some of it back."""
    minutes = start
    for number in range(random.randint(2, 6)):
        key = f"{name}_{number}"
        fields: dict[str, Any] = {
            "customer_id": f"cus_{name}",
            "order_reference": random.choice((None, None, "1", "2")),
            "from_invoice": random.random() < 0.2,
            "invoice_id": random.choice((None, "in_1", "in_2")),
        }
        paid = charge(key, minutes, **fields)
        yield minutes, paid
        if random.random() < 0.5:
            given_back, amount = minutes + random.choice((1, 10, 10 * DAY)), random.choice((400, 1000, 1000))
            yield given_back, refund(key, given_back, of=paid, amount=amount)
            yield given_back, charge(key, minutes, snapshot=2, updated=given_back, amount_refunded=amount, **fields)
            if random.random() < 0.2:
                yield given_back + DAY, refund(key, given_back, of=paid, amount=amount, status="failed", snapshot=2)
        minutes += random.choice((0, 5, 15, 20, 25))


def reports(random: Random, name: str, start: float) -> Iterator[Happening]:
    """Charges, and weeks later warnings, inquiries and disputes about them, the one often after the other."""
    account = random.choice((None, None, "acct_2"))
    for number in range(random.randint(2, 8)):
        key, minutes = f"{name}_{number}", start + number
        fields = {"amount": random.choice((500, 1000)), "currency": random.choice(("usd", "jpy")), "account": account}
        yield minutes, charge(key, minutes, **fields)
        reported = minutes + random.choice((60, 600, random.uniform(0, 10 * DAY)))
        if random.random() < 0.6:
            warned = reported + random.choice((-30, 0, random.uniform(0, 20 * DAY)))
            yield warned, warning(key, warned, account=account)
        if random.random() < 0.5:
            reason = random.choice(("fraudulent", "fraudulent", "duplicate"))
            yield reported, dispute(key, reported, account=account, reason=reason)
            if random.random() < 0.5:
                decided = reported + random.uniform(0, 30) * DAY
                status = random.choice(("under_review", "won", "lost", "prevented"))
                yield decided, dispute(key, reported, snapshot=2, updated=decided, account=account, reason=reason, status=status)
        else:
            yield reported, dispute(key, reported, account=account, kind="inquiry", status="warning_needs_response")
            if random.random() < 0.7:
                escalated = reported + random.uniform(0, 30) * DAY
                yield escalated, dispute(key, reported, snapshot=2, updated=escalated, account=account)


def credits_given(random: Random, name: str, start: float) -> Iterator[Happening]:
    """An invoice that is or was negative."""
    yield start, invoice(name, start, total=-500, status="draft", finalized_at=None)
    yield start + 60, invoice(name, start, total=random.choice((-500, 500)), status="open", snapshot=2, updated=start + 60)
    if random.random() < 0.4:
        yield start + 90, invoice(name, start, total=-500, status="void", snapshot=3, updated=start + 90)


def plans(random: Random, name: str, start: float) -> Iterator[Happening]:
    """Subscriptions go up and down, sometimes at once and back, over months and years, and end."""
    for number in range(random.randint(1, 4)):
        key, minutes, mrr, status = f"{name}_{number}", start + number, random.choice((500, 1000)), random.choice(("active", "trialing"))
        account, interval = random.choice((None, None, "acct_2")), "month"
        for snapshot in range(1, random.randint(2, 9)):
            fields: dict[str, Any] = {"status": status, "mrr": mrr, "items": [item(mrr or 0, interval=interval)], "account": account}
            yield minutes, subscription(key, start + number, snapshot=snapshot, updated=minutes, **fields)
            if status == "canceled":
                break
            minutes += random.choice((0, 1, 9, 11, DAY, random.uniform(0, 3 * DAY)))
            mrr = random.choice((mrr, 300, 500, 500, 1000, 1000, 2000, None))
            status = random.choice(("active", "active", "active", "past_due", "unpaid", "canceled"))
            interval = random.choice((interval, "month", "year"))


def collections(random: Random, name: str, start: float) -> Iterator[Happening]:
    """Invoices are tried again and again, by card or by bank debit, run out, are written off, and some are paid in the end."""
    for number in range(random.randint(1, 4)):
        key, minutes, created = f"{name}_{number}", start + number, start + number
        account, snapshot = random.choice((None, None, "acct_2")), 0
        fields: dict[str, Any] = {"account": account, "total": random.choice((500, 5000)), "currency": random.choice(("usd", "jpy"))}
        for attempt in range(1, random.randint(2, 5)):
            for _ in range(random.randint(1, 3)):
                snapshot += 1
                ahead = random.choice((None, None, at(minutes), at(minutes + 4 * DAY)))
                status = random.choice(("open", "open", "open", "uncollectible"))
                tried = {"updated": minutes, "attempt_count": attempt, "next_payment_attempt_at": ahead, "status": status}
                yield minutes, unpaid(key, created, snapshot=snapshot, **{**fields, **tried}, payment_ids=[f"pi_{key}"])
                minutes += random.choice((0, 0.5, 2))
            if random.random() < 0.4:
                debit: dict[str, Any] = {"account": account, "payment_id": f"pi_{key}", "payment_method_type": "sepa_debit"}
                begun, decided = minutes - random.choice((0, 1, 3)), minutes + random.uniform(0, 6) * DAY
                yield begun, charge(f"{key}_{attempt}", begun, status="pending", **debit)
                yield (
                    decided,
                    charge(f"{key}_{attempt}", begun, status=random.choice(("failed", "succeeded")), snapshot=2, updated=decided, **debit),
                )
            minutes += random.uniform(0, 5) * DAY
        if random.random() < 0.6:
            end = random.choice(({"status": "paid", "paid_at": at(minutes)}, {"status": "void", "voided_at": at(minutes)}))
            yield minutes, invoice(key, created, snapshot=snapshot + 1, updated=minutes, **fields, **end, payment_ids=[f"pi_{key}"])


def trying_cards(random: Random, name: str, start: float) -> Iterator[Happening]:
    """Few cards are tried again and again within two hours, by guests or by one customer, some with success that is given back."""
    account, customer_id = random.choice((None, None, "acct_2")), random.choice((None, f"cus_{name}"))
    for number in range(random.randint(3, 25)):
        key, minutes = f"{name}_{number}", start + random.randint(0, 120)
        fields: dict[str, Any] = {
            "account": account,
            "customer_id": customer_id,
            "card_fingerprint": random.choice((None, "fp_1", "fp_2", "fp_3", f"fp_{key}")),
            "amount": random.choice((100, 200, 5000)),
            "currency": random.choice(("usd", "jpy")),
            "from_invoice": random.random() < 0.1,
        }
        kind = random.choice((charge, failed, failed, blocked))
        yield minutes, kind(key, minutes, **fields)
        if kind is charge and random.random() < 0.4:
            given_back = minutes + random.choice((10, 2 * DAY))
            yield given_back, charge(key, minutes, snapshot=2, updated=given_back, amount_refunded=fields["amount"], **fields)


def sales(random: Random, name: str, start: float) -> Iterator[Happening]:
    """Cards and debits of the days before, by which it is known what is usual and what is small."""
    account = random.choice((None, None, "acct_2"))
    for number in range(random.randint(20, 60)):
        key, minutes = f"{name}_{number}", start - random.uniform(0, 8) * DAY
        kind = random.choice((charge, charge, charge, failed, blocked))
        yield minutes, kind(key, minutes, account=account, amount=random.choice((150, 500, 900)), card_fingerprint=f"fp_{key}")


def refunds_given(random: Random, name: str, start: float) -> Iterator[Happening]:
    """Much is given back within hours, in parts or at once, some of it in vain; now and then something was given back before."""
    account = random.choice((None, None, "acct_2"))
    sold = [
        charge(f"{name}_{number}", start - 9 * DAY, account=account, currency=random.choice(("usd", "usd", "jpy")))
        for number in range(random.randint(2, 10))
    ]
    yield from ((start - 9 * DAY, paid) for paid in sold)
    for number in range(random.randint(3, 15)):
        key, paid = f"{name}_{number}", random.choice(sold)
        minutes = start + random.choice((-random.uniform(0, 8) * DAY, 60 * random.uniform(0, 12), 60 * random.randint(0, 12)))
        fields = {"amount": random.choice((100, 400, 1000, 100_000)), "reason": random.choice((None, None, "expired_uncaptured_charge"))}
        yield minutes, refund(key, minutes, of=paid, status=random.choice(("pending", "succeeded")), **fields)
        if random.random() < 0.3:
            decided = minutes + random.uniform(0, 20) * DAY
            yield decided, refund(key, minutes, of=paid, status=random.choice(("succeeded", "failed", "canceled")), snapshot=2, **fields)


def currencies(random: Random, name: str, start: float) -> Iterator[Happening]:
    """One customer pays in one currency, then in others; Stripe may say which is theirs, and some of it is decided or given back later."""
    account = random.choice((None, None, "acct_2"))
    if random.random() < 0.5:
        for snapshot in range(1, random.randint(2, 3)):
            told = start + random.uniform(-2, 8) * DAY
            own = random.choice((None, "usd", "eur"))
            yield told, customer(name, start - 3 * DAY, snapshot=snapshot, updated=told, account=account, currency=own)
    for number in range(random.randint(2, 12)):
        key, minutes = f"{name}_{number}", start + random.choice((0, random.uniform(0, 12) * DAY))
        fields: dict[str, Any] = {
            "account": account,
            "customer_id": f"cus_{name}",
            "amount": random.choice((1000, 2000)),
            "currency": random.choice(("usd", "usd", "usd", "eur", "jpy")),
        }
        if random.random() < 0.2:
            yield minutes, charge(key, minutes, status="pending", **fields)
            decided = minutes + random.uniform(0, 12) * DAY
            yield decided, random.choice((charge, failed))(key, minutes, snapshot=2, updated=decided, **fields)
        else:
            yield minutes, random.choice((charge, charge, failed))(key, minutes, **fields)
            if random.random() < 0.2:
                given_back = minutes + random.choice((0, 60, 5 * DAY))
                yield given_back, charge(key, minutes, snapshot=2, updated=given_back, amount_refunded=fields["amount"], **fields)


def billed_periods(random: Random, name: str, start: float) -> Iterator[Happening]:
    """A subscription that is renewed, or not; twice, or too early; that changes its price, its anchor, or ends."""
    account, interval = random.choice((None, None, "acct_2")), random.choice(("day", "day", "week", "month"))
    length, amount = {"day": 1, "week": 7, "month": 31}[interval] * DAY, random.choice((500, 1000))
    told: dict[str, Any] = {"made": start, "account": account, "currency": random.choice(("usd", "jpy"))}
    anchor, begins, reason = start, start, "subscription_create"
    for number in range(random.randint(1, 6)):
        sold, state = renewals.item(begins, begins + length, amount, interval=interval), {"billing_cycle_anchor_at": at(anchor)}
        if random.random() < 0.8:
            later = begins + random.choice((0, 0, 0.5, 300))
            status = random.choice(("active", "active", "active", "past_due", "trialing"))
            yield later, renewals.subscription(name, later, sold, status=status, **told, **state)
        for copy in range(random.choice((0, 1, 1, 1, 2, 3))):
            key, made = f"{name}_{number}_{copy}", begins + copy * random.choice((0, 60, 900))
            billed: dict[str, Any] = {
                "subscription_id": f"sub_{name}",
                "account": account,
                "currency": told["currency"],
                "total": random.choice((amount, amount, 700)),
                "billing_reason": random.choice((reason, reason, reason, "subscription_update")),
                "period_start_at": at(begins - length),
                "period_end_at": at(begins),
                "discount_amount": random.choice((None, 0, 100)),
                "tax_amount": 0,
            }
            lines = [renewals.line(begins, begins + length, billed["total"])]
            billed["lines"] = random.choice((lines, lines, None))
            final = made + random.choice((60, 60, 60, 2 * DAY))
            yield made, invoice(key, made, **{**billed, "status": "draft", "finalized_at": None})
            yield final, invoice(key, made, snapshot=2, updated=final, **{**billed, "status": "open", "finalized_at": at(final)})
            over = final + random.choice((1, 600, 2 * DAY))
            ended = random.choice(("open", "paid", "void"))
            yield (
                over,
                invoice(
                    key,
                    made,
                    snapshot=3,
                    updated=over,
                    **{**billed, "status": ended, "finalized_at": at(final), "voided_at": at(over) if ended == "void" else None},
                ),
            )
        if random.random() < 0.3:
            changed, amount = begins + random.choice((-1, 1, 400)), random.choice((500, 1000))
            yield changed, renewals.subscription(name, changed, {**sold, "amount": amount}, **told, **state)
        begins, reason = begins + random.choice((length, length, length, length / 3)), "subscription_cycle"
        if random.random() < 0.1:
            anchor = begins
    if random.random() < 0.4:
        ended_at = begins + random.choice((-600, 0, 600, 2 * DAY))
        yield ended_at, renewals.subscription(name, ended_at, sold, status=random.choice(("canceled", "unpaid")), **told)


def steady_sales(random: Random, name: str, start: float) -> Iterator[Happening]:
    """Weeks of sales in the daytime that stop for some hours near their end; some are decided or captured later."""
    account, currency = random.choice((None, "acct_2")), random.choice(("usd", "jpy"))
    days, stop = random.randint(23, 27), random.uniform(21, 24) * DAY
    stopped = random.uniform(2, 20) * 60
    for number in range(days * 12):
        minutes = start + number // 12 * DAY + number % 12 * 45 + random.randint(0, 30)
        if stop < minutes - start < stop + stopped:
            continue
        key, fields = f"{name}_{number}", {"account": account, "currency": currency, "amount": random.randint(500, 1500)}
        if random.random() < 0.05:
            fields["payment_method_type"] = "sepa_debit"
            yield minutes, charge(key, minutes, status="pending", **fields)
            decided = minutes + random.uniform(0, 12) * DAY
            yield decided, random.choice((charge, failed))(key, minutes, snapshot=2, updated=decided, **fields)
        elif random.random() < 0.05:
            yield minutes, charge(key, minutes, captured=False, **fields)
            decided = minutes + random.uniform(0, 7) * DAY
            yield decided, charge(key, minutes, snapshot=2, updated=decided, status=random.choice(("succeeded", "expired")), **fields)
        else:
            yield minutes, charge(key, minutes, **fields)


def cards(random: Random, name: str, start: float) -> Iterator[Happening]:
    """A customer with a subscription or two, whose card comes near its end and is replaced, renewed or not."""
    account = random.choice((None, None, "acct_2"))

    def card(snapshot: int, minutes: float, month: int) -> Row:
        return payment_method(name, start, snapshot=snapshot, updated=minutes, account=account, card_exp_month=month, card_exp_year=2026)

    yield start, customer(name, start, account=account, default_payment_method_id=random.choice((None, f"pm_{name}")))
    yield start + 1, card(1, start + 1, random.choice((3, 4, 5)))
    for number in range(random.randint(1, 2)):
        for snapshot in range(1, random.randint(2, 4)):
            minutes = start + 2 + (snapshot - 1) * random.uniform(5, 30) * DAY
            yield (
                minutes,
                subscription(
                    f"{name}_{number}",
                    start + 2,
                    snapshot=snapshot,
                    updated=minutes,
                    account=account,
                    customer_id=f"cus_{name}",
                    status=random.choice(("active", "active", "past_due")),
                    default_payment_method_id=random.choice((None, f"pm_{name}")),
                ),
            )
    for snapshot in range(2, random.randint(2, 4)):
        minutes = start + random.uniform(1, 40) * DAY
        yield minutes, card(snapshot, minutes, random.choice((3, 4, 5, 12)))
    if random.random() < 0.5:
        minutes = start + random.uniform(1, 40) * DAY
        yield minutes, customer(name, start, snapshot=2, updated=minutes, account=account, default_payment_method_id=f"pm_{name}")


def endings(random: Random, name: str, start: float) -> Iterator[Happening]:
    """Subscriptions of the weeks before end one after the other, many of them within few days, and some of those resume before."""
    account = random.choice((None, None, "acct_2"))
    for number in range(random.randint(8, 20)):
        key, made = f"{name}_{number}", start - random.choice((40, random.uniform(0, 40))) * DAY
        fields: dict[str, Any] = {"account": account, "mrr": random.choice((500, 1000)), "currency": random.choice(("usd", "usd", "jpy"))}
        yield made, subscription(key, made, **fields)
        ended = max(made + 1, start + random.choice((random.uniform(-20, 0), random.uniform(0, 2), random.uniform(0, 2))) * DAY)
        if random.random() < 0.3:
            notice = random.uniform(made, ended)
            yield notice, subscription(key, made, snapshot=2, updated=notice, cancel_at_period_end=True, **fields)
        status = random.choice(("canceled", "canceled", "unpaid", "incomplete_expired", "active"))
        yield ended, subscription(key, made, snapshot=3, updated=ended, status=status, **fields)


EPISODES: tuple[Callable[[Random, str, float], Iterator[Happening]], ...] = (
    failures,
    failures,
    purchases,
    reports,
    credits_given,
    plans,
    endings,
    collections,
    trying_cards,
    sales,
    refunds_given,
    currencies,
    billed_periods,
    billed_periods,
    steady_sales,
    cards,
    cards,
)


def heard(random: Random, days: int) -> list[Delivery]:
    """What arrives at the endpoint: slow at times, silent at times, some of it again and again, some of it replayed."""
    found: list[Delivery] = []
    minutes, slow = 0.0, ("sent", 0.0)
    while minutes < days * DAY:
        minutes += random.choice((5, 40, 60, 90))
        if random.random() < 0.02:
            minutes += random.uniform(3, 40) * 60
        if random.random() < 0.1:
            slow = random.choice((("sent", 0.0), ("sent", 900.0), ("sent", 20.0), ("travelled", 40.0)))
        key, account = f"heard_{len(found)}", random.choice((None, None, None, "acct_2"))
        event = random.choice((delivery, delivery, delivery, delivery, replayed))
        timing: dict[str, Any] = {slow[0]: slow[1]} if event is delivery else {}
        found.append(event(key, minutes, account=account, **timing))
        if random.random() < 0.03:
            found += [
                delivery(f"{key}_{i}", minutes + i + random.uniform(0, 1) * (DAY - 10), account=account)
                for i in range(random.randint(1, 4))
                for _ in range(random.randint(2, 7))
            ]
    return sorted(found, key=lambda each: each.received_at)
