"""Projected tables: a newer snapshot replaces an older one, in whatever order, split or repetition they come.

Only one visit at a time writes a tenant's tables (its lane sees to that); what `project` says about changes relies on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from billingwatch.billing.rows import Charge, Customer, Dispute, Invoice, PaymentMethod, Refund, Row, Subscription
from billingwatch.billing.states import FIRST_CHARGES, State, states_of
from billingwatch.postgres.connections import TenantConnection
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "store.sql")

# In the order in which they are written, so that two writers could not block each other crosswise.
KINDS = (Charge, Invoice, Subscription, Dispute, Refund, Customer, PaymentMethod)
UPSERTS: Mapping[str, str] = {kind.table: sql[f"upsert_{kind.table}"] for kind in KINDS}
# Say which snapshot a row is, not what it says.
SNAPSHOT_COLUMNS = frozenset({"updated_at", "event_id", "version"})
CONTENT: Mapping[str, tuple[str, ...]] = {
    kind.table: tuple(name for name in kind.__struct_fields__ if name not in SNAPSHOT_COLUMNS) for kind in KINDS
}


STATE_COLUMNS = frozenset({"facts"})
# Computed from several rows, so that no event writes them.
DERIVED: Mapping[str, frozenset[str]] = {"charges": frozenset({"refunds_failed"}), "refunds": frozenset({"released"})}
INVOICE_COLUMNS = frozenset({"invoice_id"})  # of a charge whose payment an invoice names; the column itself stays as it was read
SETTLING = frozenset({"captured", "amount_refunded", "amount_released"})  # decide which refunds returned money


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A row that says something new. One whose `created_at` moved is told twice: for where it was, and for where it is."""

    table: str
    key: str
    created_at: datetime
    """When Stripe created the object; of a state, when it began."""
    inserted: bool
    columns: frozenset[str]
    """What differs from before, never empty; all columns of an inserted row."""


async def project(tenant: TenantConnection, rows: Sequence[Row]) -> list[Change]:
    """Write what is newer than the tables, one statement per table; return the rows that say something new, by table and key."""
    changes: list[Change] = []
    for table, given in _newest(rows).items():
        keys = sorted(given)
        known = await tenant.fetch(UPSERTS[table], msgspec.json.encode([given[key] for key in keys]).decode(), keys)
        before = {record[given[keys[0]].key_column]: record for record in known}
        changes.extend(change for key in keys for change in _compare(given[key], before.get(key)))
    if charge_ids := _unsettled(rows, changes):
        changes.extend(await _settle_refunds(tenant, charge_ids))
    if payment_ids := _named_payments(rows, changes):
        changes.extend(await _charges_of_payments(tenant, payment_ids))
    if states := states_of(rows):
        changes.extend(await _remember(tenant, states))
    return changes


def _unsettled(rows: Iterable[Row], changes: Iterable[Change]) -> list[str]:
    """Return the charges whose refunds may be worth something else now; most charges have none."""
    found = {change.key for change in changes if change.table == "charges" and not change.inserted and change.columns & SETTLING}
    for row in rows:
        match row:
            case Refund(charge_id=str(charge_id)):
                found.add(charge_id)
            case Charge() if row.status != "failed" and (row.amount_refunded or row.amount_released or not row.captured):
                found.add(row.charge_id)
            case _:
                pass
    return sorted(found)


async def _settle_refunds(tenant: TenantConnection, charge_ids: Sequence[str]) -> list[Change]:
    rows = await tenant.fetch(sql["settle_refunds"], charge_ids)
    changes = [
        Change(
            table=row["table_name"],
            key=row["key"],
            created_at=row["created_at"],
            inserted=False,
            columns=frozenset({row["column_name"]}),
        )
        for row in rows
    ]
    return sorted(changes, key=lambda change: (change.table, change.key))


def _named_payments(rows: Iterable[Row], changes: Iterable[Change]) -> list[str]:
    paid = {change.key for change in changes if change.table == "invoices" and "payment_ids" in change.columns}
    return sorted({payment for row in rows if isinstance(row, Invoice) and row.key in paid for payment in row.payment_ids})


async def _charges_of_payments(tenant: TenantConnection, payment_ids: Sequence[str]) -> list[Change]:
    """Return the charges of which an invoice now names the payment."""
    rows = await tenant.fetch(sql["charges_of_payments"], payment_ids)
    return [
        Change(table="charges", key=row["charge_id"], created_at=row["created_at"], inserted=False, columns=INVOICE_COLUMNS)
        for row in sorted(rows, key=lambda row: str(row["charge_id"]))
    ]


async def _remember(tenant: TenantConnection, states: Sequence[State]) -> list[Change]:
    """Keep states that were not known; each counts as an inserted row of `<kind>_states`."""
    rows = await tenant.fetch(sql["insert_states"], msgspec.json.encode(states).decode(), FIRST_CHARGES)
    return [
        Change(table=f"{row['kind']}_states", key=row["object_id"], created_at=row["created_at"], inserted=True, columns=STATE_COLUMNS)
        for row in rows
    ]


def _newest(rows: Iterable[Row]) -> dict[str, dict[str, Row]]:
    tables: dict[str, dict[str, Row]] = {kind.table: {} for kind in KINDS}
    for row in rows:
        table, key = tables[row.table], row.key
        other = table.get(key)
        table[key] = row if other is None else _merge(other, row)
    return {name: table for name, table in tables.items() if table}


def _merge(left: Row, right: Row) -> Row:
    winner = right if right.version > left.version else left
    if isinstance(left, Invoice) and isinstance(right, Invoice) and left.payment_ids != right.payment_ids:
        return msgspec.structs.replace(winner, payment_ids=_union(left.payment_ids, right.payment_ids))
    return winner


def _union(left: Iterable[str], right: Iterable[str]) -> list[str]:
    return sorted({*left, *right})


def _compare(row: Row, before: asyncpg.Record | None) -> Iterator[Change]:
    """Tell what the statement changed: it decides by `version` too."""
    if before is None:
        yield Change(table=row.table, key=row.key, created_at=row.created_at, inserted=True, columns=frozenset(CONTENT[row.table]))
        return
    now: dict[str, Any] = {}
    if row.version > before["version"]:
        now = {name: getattr(row, name) for name in CONTENT[row.table]}
    if isinstance(row, Invoice):
        now["payment_ids"] = _union(before["payment_ids"], row.payment_ids)
    columns = frozenset(name for name, value in now.items() if value != before[name])
    if columns:
        for created_at in sorted({before["created_at"], now.get("created_at", before["created_at"])}):
            yield Change(table=row.table, key=row.key, created_at=created_at, inserted=False, columns=columns)
