"""From an event to rows: the object inside says which reader it needs. Objects that we keep no table of give no rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from billingwatch.billing.charges import read_charge, read_payment_intent
from billingwatch.billing.customers import read_customer
from billingwatch.billing.disputes import read_dispute, read_early_fraud_warning
from billingwatch.billing.events import Event, parse_event
from billingwatch.billing.invoices import read_invoice, read_invoice_payment
from billingwatch.billing.payment_methods import read_card, read_payment_method
from billingwatch.billing.refunds import read_refund
from billingwatch.billing.rows import Row
from billingwatch.billing.shapes import Fields
from billingwatch.billing.subscriptions import read_subscription

READERS: Mapping[str, Callable[[Event, Fields], list[Row]]] = {
    "card": read_card,
    "charge": read_charge,
    "customer": read_customer,
    "dispute": read_dispute,
    "invoice": read_invoice,
    "issuer_fraud_record": read_early_fraud_warning,  # its name until 2019
    "invoice_payment": read_invoice_payment,
    "payment_intent": read_payment_intent,
    "payment_method": read_payment_method,
    "radar.early_fraud_warning": read_early_fraud_warning,
    "refund": read_refund,
    "source": read_payment_method,
    "subscription": read_subscription,
}


def read_event(event: object) -> list[Row]:
    """Read the rows that a snapshot event says something about. Raises ProjectionError for one that cannot be read."""
    parsed = parse_event(event)
    kind = parsed.object.get("object")
    reader = READERS.get(kind) if isinstance(kind, str) else None
    return [] if reader is None else reader(parsed, parsed.object)
