"""Refunds: the `refund` object, alone or in the list that older API versions put into its charge."""

from __future__ import annotations

from billingwatch.billing.events import Event
from billingwatch.billing.rows import Refund, Row
from billingwatch.billing.shapes import NOTHING, Fields, currency, identity, instant, reference, required, text, whole
from billingwatch.billing.versions import Stage, place, rank

STATES = ("pending", "requires_action", "succeeded", "failed", "canceled")
FINAL = frozenset({"failed", "canceled"})  # succeeded is not: a bank may send the money back days later


def read_refund(event: Event, refund: Fields, charge: Fields = NOTHING) -> list[Row]:
    """Read a refund; what it leaves unsaid is known from the charge that it came in."""
    status = text(refund, "status")
    return [
        Refund(
            refund_id=identity(refund),
            charge_id=reference(refund, "charge") or reference(charge, "id"),
            payment_intent_id=reference(refund, "payment_intent") or reference(charge, "payment_intent"),
            amount=required(whole(refund, "amount"), "amount"),
            currency=required(currency(refund) or currency(charge), "currency"),
            status=status,
            reason=text(refund, "reason"),
            failure_reason=text(refund, "failure_reason"),
            **event.stamp(
                instant(refund, "created"),
                stage=Stage.FINAL if status in FINAL else Stage.LIVE,
                rank=rank(first=event.is_creation, state=place(status, STATES)),
            ),
        )
    ]
