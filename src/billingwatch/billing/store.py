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
    if states := states_of(rows):
        changes.extend(await _remember(tenant, states))
    return changes


async def _remember(tenant: TenantConnection, states: Sequence[State]) -> list[Change]:
    """Keep states that were not known; each counts as an inserted row of `<kind>_states`, but first charges: their rows tell of them."""
    rows = await tenant.fetch(sql["insert_states"], msgspec.json.encode(states).decode(), FIRST_CHARGES)
    return [
        Change(table=f"{row['kind']}_states", key=row["object_id"], created_at=row["created_at"], inserted=True, columns=STATE_COLUMNS)
        for row in rows
        if row["kind"] != "first_charge"
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
