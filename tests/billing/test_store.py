from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from billingwatch.billing.readers import read_event
from billingwatch.billing.rows import Row
from billingwatch.billing.store import DERIVED, KINDS, Change, project
from billingwatch.postgres.connections import TenantConnection
from billingwatch.postgres.tenant_plane import metadata

from . import payloads
from .payloads import (
    DAY,
    NOW,
    charge,
    customer,
    dispute,
    early_fraud_warning,
    event,
    invoice,
    invoice_payment,
    legacy_invoice,
    listed,
    refund,
    subscription,
)
from .tables import contents, only_row

STARTED = datetime(2026, 1, 1, tzinfo=UTC)


def rows_of(*events: payloads.Json) -> list[Row]:
    return [row for one in events for row in read_event(one)]


async def deliver(tenant: TenantConnection, *events: payloads.Json) -> list[Change]:
    return await project(tenant, rows_of(*events))


async def as_read(tenant: TenantConnection, table: str) -> list[dict[str, object]]:
    derived = DERIVED.get(table, frozenset())
    return [{name: value for name, value in row.items() if name not in derived} for row in await contents(tenant, table)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_has_exactly_the_columns_of_its_table(kind: type[Row]) -> None:
    table = metadata.tables[kind.table]

    assert set(kind.__struct_fields__) | DERIVED.get(kind.table, frozenset()) == set(table.columns.keys())
    assert [column.name for column in table.primary_key] == [kind.key_column]
    assert {column.name for column in table.columns if not column.nullable} <= {
        name for name, annotation in kind.__annotations__.items() if "None" not in str(annotation)
    } | {"created_at", "updated_at", "event_id", "version"} | DERIVED.get(kind.table, frozenset())


FULL = [
    event("charge.succeeded", charge(invoice="in_1", failure_code="x", metadata={"order_id": "17"}), account="acct_1"),
    event(
        "invoice.paid", legacy_invoice(charge="ch_1", lines=listed({"amount": 5}), due_date=NOW, next_payment_attempt=NOW), account="acct_1"
    ),
    event("customer.subscription.updated", subscription(trial_end=NOW, cancel_at=NOW, canceled_at=NOW, ended_at=NOW), account="acct_1"),
    event("charge.dispute.created", dispute(), account="acct_1"),
    event("radar.early_fraud_warning.created", early_fraud_warning(), account="acct_1"),
    event("refund.created", refund(failure_reason="unknown"), account="acct_1"),
    event("customer.updated", customer(), account="acct_1"),
    event("payment_method.attached", payloads.payment_method(), account="acct_1"),
]


async def test_every_column_comes_back_as_it_was_read(tenant_connection: TenantConnection) -> None:
    rows = rows_of(*FULL)

    await project(tenant_connection, rows)

    for row in rows:
        assert msgspec.structs.asdict(row) in await as_read(tenant_connection, row.table)


async def test_a_newer_snapshot_overwrites_every_column_and_an_older_one_none(tenant_connection: TenantConnection) -> None:
    bare = [
        {name: value for name, value in one["data"]["object"].items() if name in {"id", "object", "status", "amount", "currency"}}
        for one in FULL
    ]
    later = [event("something.updated", inside, event_id="evt_2", created=NOW + 1) for inside in bare]

    await deliver(tenant_connection, *FULL)
    await deliver(tenant_connection, *later)
    await deliver(tenant_connection, *FULL)

    for row in rows_of(*later):
        kept = {"payment_ids": ["ch_1"]} if row.table == "invoices" else {}
        assert msgspec.structs.asdict(row) | kept in await as_read(tenant_connection, row.table)


async def test_changes_name_the_row_and_what_is_new(tenant_connection: TenantConnection) -> None:
    succeeded = event("charge.succeeded", charge(), event_id="evt_1", created=NOW)
    refunded = event("charge.refunded", charge(amount_refunded=500), event_id="evt_2", created=NOW + 60)

    inserted, remembered = await deliver(tenant_connection, succeeded)
    (updated,) = await deliver(tenant_connection, refunded)

    assert (inserted.table, inserted.key, inserted.created_at, inserted.inserted) == ("charges", "ch_1", STARTED, True)
    assert {"status", "amount"} <= inserted.columns
    assert (remembered.table, remembered.key, remembered.inserted) == ("first_charge_states", "cus_1 usd", True)
    assert updated == Change(table="charges", key="ch_1", created_at=STARTED, inserted=False, columns=frozenset({"amount_refunded"}))


async def test_what_says_nothing_new_is_no_change(tenant_connection: TenantConnection) -> None:
    first = event("charge.succeeded", charge(), event_id="evt_a")
    twin = event("charge.succeeded", charge(), event_id="evt_b")
    await deliver(tenant_connection, first)

    assert await deliver(tenant_connection, first) == []
    assert await deliver(tenant_connection, twin) == []
    assert (await only_row(tenant_connection, "charges"))["event_id"] == "evt_b"


async def test_an_older_event_changes_nothing(tenant_connection: TenantConnection) -> None:
    await deliver(tenant_connection, event("charge.refunded", charge(amount_refunded=500), event_id="evt_2", created=NOW + 60))

    assert await deliver(tenant_connection, event("charge.succeeded", charge(), event_id="evt_1", created=NOW)) == []
    assert (await only_row(tenant_connection, "charges"))["amount_refunded"] == 500


async def test_one_batch_may_hold_many_snapshots_of_one_object(tenant_connection: TenantConnection) -> None:
    history = [event("charge.refunded", charge(amount_refunded=100 * n), event_id=f"evt_{n}", created=NOW + n) for n in range(5)]

    changes = await deliver(tenant_connection, *reversed(history), *history)

    assert [(change.table, change.key) for change in changes] == [("charges", "ch_1"), ("first_charge_states", "cus_1 usd")]
    assert (await only_row(tenant_connection, "charges"))["amount_refunded"] == 400


async def test_changes_come_by_table_and_key(tenant_connection: TenantConnection) -> None:
    events = [event("refund.created", refund()), *(event("charge.succeeded", charge(f"ch_{n}")) for n in (2, 1, 3))]

    changes = await deliver(tenant_connection, *events)

    assert [(change.table, change.key) for change in changes] == [
        ("charges", "ch_1"),
        ("charges", "ch_2"),
        ("charges", "ch_3"),
        ("refunds", "re_1"),
        *[("first_charge_states", "cus_1 usd")] * 3,
    ]


async def test_nothing_to_project_is_no_change(tenant_connection: TenantConnection) -> None:
    assert await project(tenant_connection, []) == []


async def test_children_come_before_their_parents(tenant_connection: TenantConnection) -> None:
    changes = await deliver(
        tenant_connection,
        event("invoice_payment.paid", invoice_payment("in_unseen")),
        event("charge.dispute.created", dispute(charge="ch_unseen")),
        event("radar.early_fraud_warning.created", early_fraud_warning(charge="ch_unseen")),
        event("refund.created", refund(charge="ch_unseen")),
    )

    assert [change.key for change in changes] == ["in_unseen", "dp_1", "issfr_1", "re_1"]


@pytest.mark.parametrize("first", ["payment", "invoice"])
async def test_an_invoice_and_its_payment_meet_in_either_order(tenant_connection: TenantConnection, first: str) -> None:
    paid = event("invoice.paid", invoice(status="paid"), event_id="evt_1", created=NOW)
    payment = event("invoice_payment.paid", invoice_payment(), event_id="evt_2", created=NOW + DAY)

    for one in (payment, paid) if first == "payment" else (paid, payment):
        await deliver(tenant_connection, one)

    row = await only_row(tenant_connection, "invoices")
    assert (row["status"], row["payment_ids"], row["event_id"]) == ("paid", ["pi_1"], "evt_1")


async def test_payments_of_an_invoice_add_up_whichever_snapshot_is_newest(tenant_connection: TenantConnection) -> None:
    await deliver(
        tenant_connection, event("invoice.paid", legacy_invoice(status="paid", payment_intent="pi_2"), event_id="evt_2", created=NOW + 60)
    )

    older = event("invoice.updated", legacy_invoice(charge="ch_1"), event_id="evt_1", created=NOW)
    newer = event("invoice.updated", legacy_invoice(status="paid"), event_id="evt_3", created=NOW + 90)
    (added,) = await deliver(tenant_connection, older, event("invoice_payment.paid", invoice_payment(), event_id="evt_0"))
    rest = await deliver(tenant_connection, newer)

    assert (added.columns, added.created_at) == ({"payment_ids"}, STARTED)
    assert rest == []
    assert (await only_row(tenant_connection, "invoices"))["payment_ids"] == ["ch_1", "pi_1", "pi_2"]


async def test_a_payment_that_is_linked_already_is_no_change(tenant_connection: TenantConnection) -> None:
    payment = event("invoice_payment.paid", invoice_payment())
    await deliver(tenant_connection, event("invoice.paid", invoice(status="paid")), payment)

    assert await deliver(tenant_connection, payment) == []


async def test_two_partial_payments_are_heard_of_before_their_invoice(tenant_connection: TenantConnection) -> None:
    one = event("invoice_payment.paid", invoice_payment(created=NOW - 60), event_id="evt_1", created=NOW)
    other = event("invoice_payment.paid", invoice_payment("in_1", {"type": "charge", "charge": "ch_2"}), event_id="evt_2", created=NOW + 60)

    await deliver(tenant_connection, other)
    await deliver(tenant_connection, one)

    row = await only_row(tenant_connection, "invoices")
    assert (row["status"], row["payment_ids"], row["event_id"]) == ("unknown", ["ch_2", "pi_1"], "evt_2")
    assert row["created_at"] == STARTED


async def test_a_row_that_moves_in_time_is_told_for_both_places(tenant_connection: TenantConnection) -> None:
    heard_of = event("invoice_payment.paid", invoice_payment(created=NOW + DAY))
    await deliver(tenant_connection, heard_of)

    changes = await deliver(tenant_connection, event("invoice.paid", invoice(status="paid", created=NOW)))

    assert [(change.key, change.created_at, change.inserted) for change in changes] == [
        ("in_1", STARTED, False),
        ("in_1", STARTED + timedelta(days=1), False),
    ]
    assert all("created_at" in change.columns for change in changes)


async def test_a_charge_and_its_invoice_name_the_same_payment_in_every_shape(tenant_connection: TenantConnection) -> None:
    """What tells a renewal from a double charge."""
    for inside in (legacy_invoice("in_1", payment_intent="pi_1"), invoice("in_2", payments=listed(invoice_payment("in_2")))):
        await deliver(
            tenant_connection, event("invoice.payment_succeeded", inside), event("charge.succeeded", charge(payment_intent="pi_1"))
        )
    await deliver(tenant_connection, event("invoice.paid", invoice("in_3")), event("invoice_payment.paid", invoice_payment("in_3")))

    joined = await tenant_connection.fetch(
        "SELECT i.invoice_id FROM charges AS c JOIN invoices AS i ON i.payment_ids && ARRAY[c.payment_id, c.charge_id] ORDER BY invoice_id"
    )
    assert [record["invoice_id"] for record in joined] == ["in_1", "in_2", "in_3"]


async def test_a_connected_account_keeps_its_name(tenant_connection: TenantConnection) -> None:
    await deliver(tenant_connection, event("charge.succeeded", charge(), account="acct_2"))

    assert (await only_row(tenant_connection, "charges"))["account"] == "acct_2"


async def test_objects_of_a_test_clock_live_in_their_own_time(tenant_connection: TenantConnection) -> None:
    later = STARTED + timedelta(days=4000)

    changes = await deliver(
        tenant_connection, event("customer.subscription.created", subscription(created=NOW + 4000 * DAY, test_clock="clock_1"))
    )

    told = [(change.table, change.created_at) for change in changes if change.table != "turn_states"]
    assert told == [("subscriptions", later), ("subscription_states", STARTED)]
