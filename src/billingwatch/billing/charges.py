"""Charges: one attempt to take money each."""

from __future__ import annotations

import re

from billingwatch.billing.events import Event
from billingwatch.billing.refunds import read_refund
from billingwatch.billing.rows import Charge, Row
from billingwatch.billing.shapes import (
    Fields,
    currency,
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

STATES = ("pending", "failed", "succeeded", "expired")
RENAMED_STATES = {"paid": "succeeded"}  # until 2015
REFUNDED_MAX = 10**15 - 1  # the part of a rank's progress that counts refunded minor units

# What Stripe itself writes into `description` when the charge pays an invoice; the only hint since charges lost `invoice` in 2025-03-31.
INVOICE_DESCRIPTION = re.compile(r"subscription (creation|update)|payment for invoice( [\w-]*\d[\w-]*)?", re.IGNORECASE | re.ASCII)
RELEASE_NO_REFUND = "2025-03-31"  # before, Stripe counts the part of an authorization that is not captured as refunded
ORDER_KEYS = ("order_id", "orderId", "order", "order_number", "order_reference", "cart_id", "checkout_id", "booking_id")
# Made up by Stripe for every charge that has a destination, so they name no order.
OWN_TRANSFER_GROUPS = ("group_ch_", "group_pi_", "group_py_")


def read_charge(event: Event, charge: Fields) -> list[Row]:
    """Read a charge, and the refunds inside it (API versions before 2022-11-15)."""
    charge_id, intent, invoice = identity(charge), reference(charge, "payment_intent"), reference(charge, "invoice")
    customer = reference(charge, "customer") or reference(charge, "customer_account")
    amount = required(whole(charge, "amount"), "amount")
    status = _status(event, charge)
    captured = flag(charge, "captured")
    captured = status == "succeeded" if captured is None else captured
    amount_captured = whole(charge, "amount_captured")
    if amount_captured is None:
        amount_captured = amount if captured and status != "failed" else 0
    refunded = whole(charge, "amount_refunded") or 0
    released = min(refunded, amount - amount_captured) if event.shaped_before(RELEASE_NO_REFUND) else 0
    refunded = max(refunded - max(released, 0), 0)
    disputed = bool(flag(charge, "disputed") or charge.get("dispute"))
    outcome = section(charge, "outcome")
    method_type, method = _payment_method(charge)
    fingerprint = text(method, "fingerprint")
    is_card = method_type is not None and method_type.startswith("card")
    row = Charge(
        charge_id=charge_id,
        payment_id=intent or invoice or charge_id,
        payment_intent_id=intent,
        invoice_id=invoice,
        from_invoice=invoice is not None or _names_invoice(text(charge, "description")),
        customer_id=customer,
        payer=customer or fingerprint,
        amount=amount,
        amount_captured=amount_captured,
        amount_refunded=refunded,
        currency=required(currency(charge), "currency"),
        status=status,
        captured=captured,
        disputed=disputed,
        failure_code=text(charge, "failure_code"),
        decline_code=_decline_code(outcome),
        outcome_type=text(outcome, "type"),
        risk_level=text(outcome, "risk_level"),
        payment_method_type=method_type,
        card_fingerprint=fingerprint if is_card else None,
        card_country=text(method, "country") if is_card else None,
        order_reference=_order_reference(charge),
        destination=_destination(charge),
        amount_released=max(released, 0),
        **event.stamp(
            instant(charge, "created"),
            # An expired authorization is over, but its object still says succeeded: later events must not revive it.
            stage=Stage.FINAL if status == "expired" else Stage.LIVE,
            rank=rank(
                first=False,
                state=place(status, STATES),
                progress=(2 * disputed + captured) * (REFUNDED_MAX + 1) + min(max(refunded, 0), REFUNDED_MAX),
            ),
        ),
    )
    # The earliest refunds had no id; the charge's own amount_refunded counts them.
    return [row, *(found for refund in entries(charge, "refunds") if refund.get("id") for found in read_refund(event, refund, charge))]


def read_payment_intent(event: Event, intent: Fields) -> list[Row]:
    """Read the charges that a payment intent carries: all of them before API version 2022-11-15, else the latest where expanded."""
    latest = section(intent, "latest_charge")
    found = {identity(charge): charge for charge in (*entries(intent, "charges"), *([latest] if latest else []))}
    return [row for charge in found.values() for row in read_charge(event, charge)]


def _status(event: Event, charge: Fields) -> str:
    if event.type == "charge.expired":
        return "expired"
    status = text(charge, "status")
    if status is not None:
        return RENAMED_STATES.get(status, status)
    if flag(charge, "paid"):
        return "succeeded"
    return "failed" if charge.get("failure_code") or charge.get("failure_message") else "pending"


def _names_invoice(description: str | None) -> bool:
    return INVOICE_DESCRIPTION.fullmatch(description or "") is not None


def _decline_code(outcome: Fields) -> str | None:
    by_issuer = text(outcome, "reason") if text(outcome, "type") == "issuer_declined" else None
    return by_issuer or text(outcome, "network_decline_code")


def _payment_method(charge: Fields) -> tuple[str | None, Fields]:
    details = section(charge, "payment_method_details")
    if details:
        kind = text(details, "type")
        return kind, section(details, kind or "")
    source = section(charge, "source") or section(charge, "card")  # `card` until 2015
    if not source:
        return None, source
    kind = text(source, "object") or "card"
    if kind == "source":
        kind = text(source, "type") or kind
        return kind, section(source, kind)
    return kind, source


def _destination(charge: Fields) -> str | None:
    """Read the seller's account: `transfer_data` since 2018, `destination` before; `on_behalf_of` where transfers are made apart."""
    receiver = reference(section(charge, "transfer_data"), "destination") or reference(charge, "destination")
    return receiver or reference(charge, "on_behalf_of")


def _order_reference(charge: Fields) -> str | None:
    metadata = section(charge, "metadata")
    for key in ORDER_KEYS:
        value = metadata.get(key)
        if isinstance(value, int):
            return str(value)
        if isinstance(value, str) and value:
            return text(metadata, key)
    if (order := reference(charge, "order")) is not None:  # of the Orders API, 2015 to 2022
        return order
    group = text(charge, "transfer_group")
    return None if group is None or group.startswith(OWN_TRANSFER_GROUPS) else group
