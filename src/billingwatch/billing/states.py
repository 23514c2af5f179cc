"""States: what subscriptions, payment methods and customers were before, and invoices that an attempt to collect left unpaid.

A projected table forgets the older snapshot. A detector that judges an instant of the past needs what was true then, whatever came later
and in whatever order it arrived.

Kept beside them are the first payments of a customer in a currency, by which it is known without a pass over all charges which currencies
are the customer's. Their object is the customer's id and the currency, their version the order in which they were made.

So are the turns of subscriptions, the seconds at which a period of what they sell ends and the next begins, by which it is known without a
pass over all states what is due. Their object is the subscription's id and the second, and they are created then, which may be years ahead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

import msgspec

from billingwatch.billing.rows import Charge, Customer, Invoice, PaymentMethod, Row, Subscription
from billingwatch.billing.shapes import from_seconds

Kind: TypeAlias = Literal["customer", "first_charge", "invoice", "payment_method", "subscription", "turn"]

KINDS: Mapping[type[Row], Kind] = {Customer: "customer", Invoice: "invoice", PaymentMethod: "payment_method", Subscription: "subscription"}
FIRST_CHARGES = 5  # of a customer in a currency
TOLD_WITHIN = timedelta(hours=1)  # of its turn; who hears of a period later may not have heard of its invoice
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
        if isinstance(row, Subscription):
            for turn in _turns(row):
                found.setdefault((turn.object_id, turn.version), turn)
    return [found[key] for key in sorted(found)]


def _first_charge(charge: Charge, customer_id: str) -> State:
    return State(
        object_id=f"{customer_id} {charge.currency}",
        version=f"{charge.created_at.isoformat()} {charge.charge_id}",
        kind="first_charge",
        account=charge.account,
        created_at=charge.created_at,
        event_id="",  # the event that arrives first depends on the order of delivery
        facts={"charge_id": charge.charge_id, "customer_id": customer_id, "currency": charge.currency},
    )


def _turns(subscription: Subscription) -> Iterator[State]:
    """Give the ends of its periods, and the beginnings of those that it tells of at once. What is metered is billed if it is used."""
    for item in subscription.items:
        if item["usage_type"] == "metered":
            continue
        began, ends = _instant(item["period_start"], subscription.period_start_at), _instant(item["period_end"], subscription.period_end_at)
        at_once = began is not None and timedelta(0) <= subscription.updated_at - began <= TOLD_WITHIN
        for at in (began if at_once else None, ends):
            if at is not None:
                yield State(
                    object_id=f"{subscription.subscription_id} {int(at.timestamp())}",
                    version="1",
                    kind="turn",
                    account=subscription.account,
                    created_at=at,
                    event_id="",  # whichever came first would depend on their order
                    facts={"subscription_id": subscription.subscription_id},
                )


def _instant(of_item: object, otherwise: datetime | None) -> datetime | None:
    """Older API versions tell the period of the subscription alone."""
    return from_seconds(of_item) if isinstance(of_item, int) else otherwise


def _left_unpaid(invoice: Invoice) -> bool:
    """Return whether nobody has paid it after an attempt, or it was written off, which an invoice that is sent is without an attempt."""
    return invoice.status == "uncollectible" or (invoice.status in UNPAID and bool(invoice.attempt_count))
