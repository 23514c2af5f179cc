"""The same history in any order, any batches and any number of repetitions leaves the same tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from billingwatch.billing.readers import read_event
from billingwatch.billing.rows import Row
from billingwatch.billing.store import CONTENT, DERIVED, INVOICE_COLUMNS, KINDS, Change, project
from billingwatch.postgres.connections import TenantConnection

from .payloads import (
    NOW,
    Json,
    charge,
    customer,
    dispute,
    early_fraud_warning,
    event,
    invoice,
    invoice_payment,
    item,
    legacy_invoice,
    listed,
    payment_method,
    refund,
    subscription,
)
from .tables import contents

Tables = dict[str, list[dict[str, Any]]]

SNAPSHOTS: list[tuple[str, Json]] = [
    ("charge.pending", charge(status="pending")),
    ("charge.failed", charge(status="failed", failure_code="card_declined")),
    ("charge.succeeded", charge(captured=False, amount_captured=0)),
    ("charge.captured", charge()),
    ("charge.expired", charge(captured=False)),
    ("charge.refunded", charge(amount_refunded=300, refunds=listed(refund("re_1", amount=300)))),
    ("charge.refunded", charge(amount_refunded=800, refunds=listed(refund("re_1", amount=300), refund("re_2")))),
    ("charge.dispute.created", dispute(status="warning_needs_response")),
    ("charge.dispute.updated", dispute(status="needs_response")),
    ("charge.dispute.closed", dispute(status="warning_closed")),
    ("charge.dispute.closed", dispute(status="won")),
    ("charge.dispute.closed", dispute(status="lost")),
    ("radar.early_fraud_warning.created", early_fraud_warning()),
    ("radar.early_fraud_warning.updated", early_fraud_warning(actionable=False)),
    ("refund.created", refund(status="pending")),
    ("refund.updated", refund(status="succeeded")),
    ("refund.failed", refund(status="failed")),
    ("charge.refund.updated", refund("re_2", status="canceled")),
    *(("charge.succeeded", charge(f"ch_{n}", created=NOW - n)) for n in range(3, 9)),
    ("invoice.created", invoice(status="draft")),
    ("invoice.finalized", invoice()),
    ("invoice.payment_failed", invoice(attempt_count=1)),
    ("invoice.updated", legacy_invoice(charge="ch_1")),
    ("invoice.updated", legacy_invoice(status="open", payment_intent="pi_1", charge=charge("ch_9"))),
    ("invoice.paid", invoice(status="paid", amount_paid=2000)),
    ("invoice.voided", invoice(status="void")),
    ("invoice.deleted", invoice(status="draft")),
    ("invoice_payment.paid", invoice_payment()),
    ("invoice_payment.paid", invoice_payment("in_1", {"type": "charge", "charge": "ch_2"}, created=NOW - 7)),
    ("customer.subscription.created", subscription(status="incomplete")),
    ("customer.subscription.updated", subscription(status="active")),
    ("customer.subscription.updated", subscription("sub_1", item(current_period_start=NOW + 5), status="past_due")),
    ("customer.subscription.deleted", subscription(status="canceled")),
    ("customer.created", customer(email=None)),
    ("customer.updated", customer()),
    ("customer.deleted", customer()),
    ("payment_method.attached", payment_method()),
    ("payment_method.detached", payment_method(customer=None)),
    ("payment_intent.succeeded", {"id": "pi_1", "object": "payment_intent", "charges": listed(charge(), charge("ch_2"))}),
]


@st.composite
def histories(draw: st.DrawFn) -> list[Json]:
    """Events of a few seconds, so that most share theirs; their ids sort in no useful order."""
    drawn = draw(st.lists(st.tuples(st.sampled_from(SNAPSHOTS), st.integers(0, 2)), min_size=1, max_size=25))
    ids = draw(st.permutations(range(len(drawn))))
    return [
        event(kind, inside, event_id=f"evt_{number:02d}", created=NOW + second)
        for ((kind, inside), second), number in zip(drawn, ids, strict=True)
    ]


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Json], list[list[Json]]]:
    """A history, and batches in which all of it arrives at least once."""
    history = draw(histories())
    repeated = draw(st.lists(st.sampled_from(history), max_size=8))
    arriving = draw(st.permutations([*history, *repeated]))
    cuts = sorted(draw(st.lists(st.integers(0, len(arriving)), max_size=6)))
    bounds = [0, *cuts, len(arriving)]
    return history, [arriving[start:end] for start, end in pairwise(bounds)]


def rows_of(batch: list[Json]) -> list[Row]:
    return [row for one in batch for row in read_event(one)]


async def tables(tenant: TenantConnection) -> Tables:
    return {name: await contents(tenant, name) for name in (*(kind.table for kind in KINDS), "states")}


@asynccontextmanager
async def undone(tenant: TenantConnection) -> AsyncIterator[None]:
    await tenant.execute("SAVEPOINT empty_tables")
    try:
        yield
    finally:
        await tenant.execute("ROLLBACK TO SAVEPOINT empty_tables")


async def tables_after(tenant: TenantConnection, batches: list[list[Json]]) -> Tables:
    async with undone(tenant):
        for batch in batches:
            await project(tenant, rows_of(batch))
        return await tables(tenant)


def changes_between(before: Tables, after: Tables) -> set[Change]:
    found: set[Change] = set()
    for kind in KINDS:
        known = {row[kind.key_column]: row for row in before[kind.table]}
        for row in after[kind.table]:
            old = known.get(row[kind.key_column])
            columns = frozenset(name for name in CONTENT[kind.table] if old is None or row[name] != old[name])
            if columns:
                found |= {
                    Change(table=kind.table, key=row[kind.key_column], created_at=created_at, inserted=old is None, columns=columns)
                    for created_at in {row["created_at"], (old or row)["created_at"]}
                }
    return found


def _derived(change: Change) -> bool:
    return not change.inserted and change.columns <= DERIVED.get(change.table, frozenset()) | INVOICE_COLUMNS


def derived_between(before: Tables, after: Tables) -> set[tuple[str, str]]:
    keys = {kind.table: kind.key_column for kind in KINDS}
    known = {(table, row[keys[table]]): row for table in DERIVED for row in before[table]}
    return {
        (table, row[keys[table]])
        for table, columns in DERIVED.items()
        for row in after[table]
        if any(row[name] != known.get((table, row[keys[table]]), {name: 0})[name] for name in columns)
    }


EVERYTHING = [event(kind, inside, event_id=f"evt_{n % 7}{n:02d}") for n, (kind, inside) in enumerate(SNAPSHOTS)]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@example((EVERYTHING, [[one] for one in reversed(EVERYTHING)]))
@given(deliveries())
async def test_any_order_batches_and_repetitions_leave_the_same_tables(
    tenant_connection: TenantConnection, delivered: tuple[list[Json], list[list[Json]]]
) -> None:
    history, batches = delivered

    at_once = await tables_after(tenant_connection, [history])
    as_it_came = await tables_after(tenant_connection, batches)

    assert as_it_came == at_once


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(deliveries())
async def test_the_changes_told_are_the_changes_made(
    tenant_connection: TenantConnection, delivered: tuple[list[Json], list[list[Json]]]
) -> None:
    _, batches = delivered

    async with undone(tenant_connection):
        for batch in batches:
            before = await tables(tenant_connection)
            told = await project(tenant_connection, rows_of(batch))
            after = await tables(tenant_connection)
            assert {change for change in told if change.table in CONTENT and not _derived(change)} == changes_between(before, after)
            assert {
                (change.table, change.key) for change in told if change.columns & DERIVED.get(change.table, frozenset())
            } >= derived_between(before, after)
