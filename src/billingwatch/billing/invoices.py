"""Invoices, and the payments that are known to have paid them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from billingwatch.billing.charges import read_charge
from billingwatch.billing.events import Event
from billingwatch.billing.rows import Invoice, Json, Row
from billingwatch.billing.shapes import (
    BIGINT_MAX,
    INTEGER_MAX,
    Fields,
    currency,
    date_seconds,
    entries,
    flag,
    identity,
    instant,
    reference,
    required,
    section,
    text,
    whole,
)
from billingwatch.billing.versions import Stage, place, rank

STATES = ("unknown", "draft", "open", "uncollectible", "paid", "void", "deleted")
# Not `paid`: a payment can be detached from its invoice, which is open again.
FINAL = frozenset({"void", "deleted"})
ATTEMPTS_MAX, PAID_MAX = 999, 10**13 - 1  # the parts of a rank's progress that count attempts and paid minor units


def read_invoice(event: Event, invoice: Fields) -> list[Row]:
    """Read an invoice, and its charge where that is expanded. A preview of one that does not exist yet is nothing."""
    if event.type == "invoice.upcoming":
        return []
    status = _status(event, invoice)
    row = _row(event, invoice, status=status, payment_ids=set(_payment_ids(invoice)), stage=Stage.FINAL if status in FINAL else Stage.LIVE)
    charge = section(invoice, "charge")
    return [row, *(read_charge(event, charge) if charge.get("object") == "charge" else [])]


def read_invoice_payment(event: Event, payment: Fields) -> list[Row]:
    """Read which payment belongs to which invoice, as an invoice of which nothing else is known."""
    payment_ids = set(_paying(payment))
    if not payment_ids:
        return []
    known = {
        "id": required(reference(payment, "invoice"), "invoice"),
        "currency": currency(payment),
        "created": date_seconds(payment, "created"),
    }
    return [_row(event, known, status="unknown", payment_ids=payment_ids, stage=Stage.HEARD_OF)]


def _row(event: Event, invoice: Fields, *, status: str, payment_ids: set[str], stage: Stage) -> Invoice:
    transitions = section(invoice, "status_transitions")
    attempts, due = whole(invoice, "attempt_count", INTEGER_MAX), whole(invoice, "amount_due")
    paid, remaining = whole(invoice, "amount_paid"), whole(invoice, "amount_remaining")
    if paid is None and remaining is None and due is not None:  # until 2018 `paid` was all there was
        paid, remaining = (due, 0) if status == "paid" else (0, due)
    progress = min(attempts or 0, ATTEMPTS_MAX) * (PAID_MAX + 1) + min(max(paid or 0, 0), PAID_MAX)
    return Invoice(
        invoice_id=identity(invoice),
        customer_id=reference(invoice, "customer") or reference(invoice, "customer_account"),
        subscription_id=_subscription(invoice),
        number=text(invoice, "number"),
        status=status,
        billing_reason=text(invoice, "billing_reason"),
        collection_method=text(invoice, "collection_method") or text(invoice, "billing"),  # `billing` until 2019-10-17
        currency=currency(invoice),
        total=whole(invoice, "total"),
        subtotal=whole(invoice, "subtotal"),
        amount_due=due,
        amount_paid=paid,
        amount_remaining=remaining,
        starting_balance=whole(invoice, "starting_balance"),
        ending_balance=whole(invoice, "ending_balance"),
        attempt_count=attempts,
        next_payment_attempt_at=instant(invoice, "next_payment_attempt"),
        period_start_at=instant(invoice, "period_start"),
        period_end_at=instant(invoice, "period_end"),
        due_at=instant(invoice, "due_date"),
        finalized_at=instant(transitions, "finalized_at") or instant(invoice, "finalized_at"),
        paid_at=instant(transitions, "paid_at"),
        voided_at=instant(transitions, "voided_at"),
        payment_ids=sorted(payment_ids),
        lines=_lines(invoice),
        discount_amount=_taken_off(invoice),
        tax_amount=_tax_on_top(invoice),
        **event.stamp(
            instant(invoice, "created") or instant(invoice, "date"),  # `date` until 2019
            stage=stage,
            rank=rank(first=event.is_creation, state=place(status, STATES), progress=progress),
        ),
    )


def _taken_off(invoice: Fields) -> int | None:
    """Add up discounts and used credit grants; None where the payload does not tell."""
    if not isinstance(invoice.get("total_discount_amounts"), list):
        return None
    grants = (credit for credit in entries(invoice, "total_pretax_credit_amounts") if text(credit, "type") == "credit_balance_transaction")
    return _sum([*entries(invoice, "total_discount_amounts"), *grants])


def _tax_on_top(invoice: Fields) -> int | None:
    """Add up the tax that is not in the prices; None where the payload does not tell, or shipping hides it."""
    if whole(invoice, "amount_shipping") or whole(section(invoice, "shipping_cost"), "amount_total"):
        return None
    for name in ("total_taxes", "total_tax_amounts"):
        if isinstance(invoice.get(name), list):
            return _sum(tax for tax in entries(invoice, name) if not (flag(tax, "inclusive") or text(tax, "tax_behavior") == "inclusive"))
    return whole(invoice, "tax")


def _sum(parts: Iterable[Fields]) -> int | None:
    amounts = [whole(part, "amount") for part in parts]
    total = sum(amount or 0 for amount in amounts)
    return None if None in amounts or abs(total) > BIGINT_MAX else total


def _status(event: Event, invoice: Fields) -> str:
    if event.is_deletion or flag(invoice, "deleted"):
        return "deleted"
    status = text(invoice, "status")
    if status is not None:
        return status
    # Until 2018 booleans said it.
    if flag(invoice, "paid"):
        return "paid"
    if flag(invoice, "forgiven"):
        return "uncollectible"
    return "open" if flag(invoice, "attempted") or flag(invoice, "closed") else "draft"


def _subscription(invoice: Fields) -> str | None:
    details = section(section(invoice, "parent"), "subscription_details")
    found = reference(invoice, "subscription") or reference(details, "subscription")
    if found is None and (text(invoice, "billing_reason") or "").startswith("subscription"):
        # Old endpoints get null for invoices of the new kind; their lines still tell.
        return next((on_line for line in _listed_lines(invoice) if (on_line := _line_subscription(line))), None)
    return found


def _line_subscription(line: Fields) -> str | None:
    named = reference(line, "subscription") or reference(section(section(line, "parent"), "subscription_item_details"), "subscription")
    # The line of a subscription had its id at first.
    return named or (reference(line, "id") if text(line, "type") == "subscription" and str(line.get("id")).startswith("sub_") else None)


def _payment_ids(invoice: Fields) -> Iterator[str]:
    yield from filter(None, (reference(invoice, "charge"), reference(invoice, "payment_intent")))
    for payment in entries(invoice, "payments"):
        yield from _paying(payment)


def _paying(payment: Fields) -> Iterator[str]:
    if text(payment, "status") == "canceled":
        return
    paid_by = section(payment, "payment")
    yield from filter(None, (reference(paid_by, name) for name in ("charge", "payment_intent", "payment_record")))


def _lines(invoice: Fields) -> list[Json] | None:
    if invoice.get("lines") is None:
        return None
    listed_all = not flag(section(invoice, "lines"), "has_more")
    return [{**_line(line), "listed_all": listed_all} for line in _listed_lines(invoice)]


def _listed_lines(invoice: Fields) -> Iterator[Fields]:
    """Read the lines: one list, or until 2012 a list for each kind."""
    yield from entries(invoice, "lines")
    of_kinds = section(invoice, "lines")
    for kind in ("subscriptions", "invoiceitems", "prorations"):
        for line in entries(of_kinds, kind):
            yield {"proration": kind == "prorations", **line}


def _line(line: Fields) -> Json:
    parent = section(line, "parent")
    details = section(parent, text(parent, "type") or "")
    period, price = section(line, "period"), section(section(line, "pricing"), "price_details")
    proration = flag(line, "proration")
    return {
        "price_id": reference(price, "price") or reference(line, "price") or reference(line, "plan"),
        "amount": whole(line, "amount"),
        "quantity": whole(line, "quantity"),
        "proration": bool(flag(details, "proration") if proration is None else proration),
        "subscription_item_id": reference(line, "subscription_item") or reference(details, "subscription_item"),
        "period_start": date_seconds(period, "start"),
        "period_end": date_seconds(period, "end"),
        "discounted": bool(line.get("discounts")),
    }
