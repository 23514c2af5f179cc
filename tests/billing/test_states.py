"""States remember what objects were; which of them arrives first makes no difference."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from billingwatch.billing.readers import read_event
from billingwatch.billing.store import project
from billingwatch.postgres.connections import TenantConnection

from .payloads import NOW, customer, event, invoice, item, listed, payment_method, subscription
from .tables import contents

Json = dict[str, Any]


async def deliver(tenant: TenantConnection, *events: Json) -> list[str]:
    """In one visit each; the tables that were said to change."""
    told = []
    for one in events:
        told += [change.table for change in await project(tenant, read_event(one))]
    return told


async def states(tenant: TenantConnection) -> list[tuple[str, str]]:
    """Kind and status, in the order of their versions."""
    rows = sorted(await contents(tenant, "states"), key=lambda row: (row["object_id"], row["version"]))
    return [(row["kind"], row["facts"].get("status")) for row in rows]


async def test_every_state_of_a_subscription_is_kept_in_whatever_order_it_is_told(tenant_connection: TenantConnection):
    told = [
        event("customer.subscription.created", subscription(status="incomplete"), event_id="evt_1"),
        event("customer.subscription.updated", subscription(status="active"), event_id="evt_2", created=NOW + 5),
        event("customer.subscription.updated", subscription(status="past_due"), event_id="evt_3", created=NOW + 9),
    ]
    seen = []
    for order in permutations(told):
        await tenant_connection.execute("SAVEPOINT untold")
        await deliver(tenant_connection, *order)
        seen.append(await states(tenant_connection))
        await tenant_connection.execute("ROLLBACK TO untold")

    assert seen == [[("subscription", "incomplete"), ("subscription", "active"), ("subscription", "past_due")]] * 6


async def test_a_state_begins_when_its_event_occurred_and_reads_like_its_table(tenant_connection: TenantConnection):
    await deliver(tenant_connection, event("customer.subscription.updated", subscription(status="active"), created=NOW + 5))

    row = await tenant_connection.fetchrow(
        "SELECT s.created_at, o.status, o.mrr, o.items, o.period_end_at FROM states AS s"
        " CROSS JOIN LATERAL jsonb_populate_record(NULL::subscriptions, s.facts) AS o"
    )
    (projected,) = await contents(tenant_connection, "subscriptions")
    assert row["created_at"].timestamp() == NOW + 5
    assert {name: row[name] for name in ("status", "mrr", "items", "period_end_at")} == {
        name: projected[name] for name in ("status", "mrr", "items", "period_end_at")
    }


async def test_a_state_that_is_told_again_is_no_change(tenant_connection: TenantConnection):
    attached = event("payment_method.attached", payment_method())

    first = await deliver(tenant_connection, attached)
    again = await deliver(tenant_connection, attached)

    assert (first, again) == (["payment_methods", "payment_method_states"], [])


async def test_customers_are_remembered_without_name_and_address(tenant_connection: TenantConnection):
    await deliver(tenant_connection, event("customer.created", customer(email="a@example.com", name="Ada")))

    (row,) = await contents(tenant_connection, "states")
    assert row["kind"] == "customer"
    assert not {"email", "name"} & set(row["facts"])


async def test_of_invoices_only_those_are_remembered_that_an_attempt_left_unpaid(tenant_connection: TenantConnection):
    await deliver(
        tenant_connection,
        event("invoice.finalized", invoice(status="open", attempt_count=0), event_id="evt_1"),
        event("invoice.payment_failed", invoice(status="open", attempt_count=1), event_id="evt_2", created=NOW + 1),
        event("invoice.paid", invoice(status="paid", attempt_count=2), event_id="evt_3", created=NOW + 2),
    )

    assert await states(tenant_connection) == [("invoice", "open")]


def changed(before: Json, now: Json, *, created: int = NOW + 9) -> Json:
    """An update that tells what the subscription was."""
    return event("customer.subscription.updated", now, created=created, data={"object": now, "previous_attributes": before})


async def test_the_first_that_is_heard_of_a_subscription_also_tells_what_it_was(tenant_connection: TenantConnection):
    await deliver(tenant_connection, changed({"items": listed(item(quantity=7))}, subscription("sub_1", item(quantity=2))))

    (projected,) = await contents(tenant_connection, "subscriptions")
    rows = sorted(await contents(tenant_connection, "states"), key=lambda row: row["version"])
    assert [row["facts"]["items"][0]["quantity"] for row in rows] == [7, 2]
    assert [row["created_at"].timestamp() for row in rows] == [NOW + 8, NOW + 9]
    assert projected["items"][0]["quantity"] == 2


@pytest.mark.parametrize(
    "before",
    [
        {},
        {"metadata": {"seat": "1"}},
        {"status": "canceled"},  # nothing leaves that state
        {"status": 7},
        "nonsense",
    ],
)
async def test_what_tells_nothing_of_an_earlier_state_adds_none(tenant_connection: TenantConnection, before: Any):
    await deliver(tenant_connection, changed(before, subscription(status="active")))

    assert len(await contents(tenant_connection, "states")) == 1
    (projected,) = await contents(tenant_connection, "subscriptions")
    assert projected["status"] == "active"
