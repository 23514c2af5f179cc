"""States: what subscriptions, payment methods and customers were before, and invoices that an attempt to collect left unpaid.

A projected table forgets the older snapshot. A detector that judges an instant of the past needs what was true then, whatever came later
and in whatever order it arrived.

Kept beside them are the first payments of a customer in a currency, by which it is known without a pass over all charges which currencies
are the customer's. Their object is the customer's id and the currency, their version the order in which they were made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec

from billingwatch.billing.rows import Charge, Customer, Invoice, PaymentMethod, Row, Subscription

Kind: TypeAlias = Literal["customer", "first_charge", "invoice", "payment_method", "subscription"]

KINDS: Mapping[type[Row], Kind] = {Customer: "customer", Invoice: "invoice", PaymentMethod: "payment_method", Subscription: "subscription"}
FIRST_CHARGES = 5  # of a customer in a currency; there may be more of them in the table, never fewer
UNPAID = frozenset({"open", "uncollectible"})
LEFT_OUT: Mapping[str, frozenset[str]] = {
    # Kept elsewhere, large, or personal.
    "customer": frozenset({"email", "name"}),
    "invoice": frozenset({"lines", "payment_ids"}),
    "payment_method": frozenset(),
    "subscription": frozenset(),
}
STAMP = frozenset({"account", "event_id", "version", "updated_at"})


class State(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `states`."""

    object_id: str
    version: str
    kind: Kind
    account: str | None
    created_at: datetime
    event_id: str
    facts: dict[str, Any]


def states_of(rows: Iterable[Row]) -> Sequence[State]:
    """Give the states that snapshots tell of, each once."""
    found: dict[tuple[str, str], State] = {}
    for row in rows:
        if isinstance(row, Charge):
            if row.status == "succeeded" and row.captured and row.customer_id is not None:
                state = _first_charge(row, row.customer_id)
                found[state.object_id, state.version] = state
            continue
        kind = KINDS.get(type(row))
        if kind is None or (isinstance(row, Invoice) and not _left_unpaid(row)):
            continue
        omitted = LEFT_OUT[kind] | STAMP
        found[row.key, row.version] = State(
            object_id=row.key,
            version=row.version,
            kind=kind,
            account=row.account,
            created_at=row.updated_at,
            event_id=row.event_id,
            facts={name: getattr(row, name) for name in row.__struct_fields__ if name not in omitted},
        )
    return [found[key] for key in sorted(found)]


def _first_charge(charge: Charge, customer_id: str) -> State:
    return State(
        object_id=f"{customer_id} {charge.currency}",
        version=f"{charge.created_at.isoformat()} {charge.charge_id}",
        kind="first_charge",
        account=charge.account,
        created_at=charge.created_at,
        event_id=charge.event_id,
        facts={"charge_id": charge.charge_id, "currency": charge.currency},
    )


def _left_unpaid(invoice: Invoice) -> bool:
    return invoice.status in UNPAID and bool(invoice.attempt_count)
