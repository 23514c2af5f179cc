"""Customers."""

from __future__ import annotations

from billingwatch.billing.events import Event
from billingwatch.billing.rows import Customer, Row
from billingwatch.billing.shapes import Fields, currency, flag, identity, instant, reference, section, text
from billingwatch.billing.versions import Stage, rank


def read_customer(event: Event, customer: Fields) -> list[Row]:
    """Read a customer; a deleted one may be the whole object or no more than its id."""
    deleted = event.is_deletion or bool(flag(customer, "deleted"))
    default = reference(section(customer, "invoice_settings"), "default_payment_method")
    return [
        Customer(
            customer_id=identity(customer),
            email=text(customer, "email"),
            name=text(customer, "name"),
            currency=currency(customer),
            delinquent=flag(customer, "delinquent"),
            default_payment_method_id=default or _older_default(customer),
            deleted=deleted,
            **event.stamp(
                instant(customer, "created"),
                stage=Stage.FINAL if deleted else Stage.LIVE,
                rank=rank(first=event.is_creation, state=0),
            ),
        )
    ]


def _older_default(customer: Fields) -> str | None:
    """Read the card to charge: `default_source` since 2015, `default_card` since 2013, `active_card` before."""
    named = (reference(customer, name) for name in ("default_source", "default_card", "active_card"))
    return next(filter(None, named), None)
