"""States remember what objects were; which of them arrives first makes no difference."""

from __future__ import annotations

import re
from itertools import permutations
from typing import Any

import pytest

from billingwatch.billing.readers import read_event
from billingwatch.billing.store import project
from billingwatch.postgres.connections import TenantConnection
from billingwatch.postgres.migrations import render_upgrade

from .payloads import NOW, customer, event, invoice, item, listed, payment_method, price, subscription
from .tables import contents

Json = dict[str, Any]
MONTH = 31 * 86_400
USAGE = item(
    "si_2", current_period_end=NOW + 9 * MONTH, price=price(recurring={"interval": "month", "interval_count": 1, "usage_type": "metered"})
)


async def deliver(tenant: TenantConnection, *events: Json) -> list[str]:
    """In one visit each; the tables that were said to change."""
    told = []
    for one in events:
        told += [change.table for change in await project(tenant, read_event(one))]
    return told


async def kept(tenant: TenantConnection) -> list[Json]:
    """All but the turns."""
    return [row for row in await contents(tenant, "states") if row["kind"] != "turn"]


async def turns(tenant: TenantConnection) -> list[Json]:
    return [row for row in await contents(tenant, "states") if row["kind"] == "turn"]


async def states(tenant: TenantConnection) -> list[tuple[str, str]]:
    """Kind and status, in the order of their versions."""
    rows = sorted(await kept(tenant), key=lambda row: (row["object_id"], row["version"]))
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
        " CROSS JOIN LATERAL jsonb_populate_record(NULL::subscriptions, s.facts) AS o WHERE s.kind = 'subscription'"
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
    rows = sorted(await kept(tenant_connection), key=lambda row: row["version"])
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

    assert len(await kept(tenant_connection)) == 1
    (projected,) = await contents(tenant_connection, "subscriptions")
    assert projected["status"] == "active"


@pytest.mark.parametrize(("told_after", "kept_turns"), [(5, [NOW, NOW + MONTH]), (2 * 3600, [NOW + MONTH])])
async def test_a_period_turns_when_it_ends_and_when_it_is_told_of_as_it_begins(
    tenant_connection: TenantConnection, told_after: int, kept_turns: list[int]
):
    """Whoever hears of a period later may not have heard of its invoice."""
    renewed = subscription("sub_1", item(), USAGE, status="active")
    told = [
        event("customer.subscription.updated", renewed, event_id=f"evt_{after}", created=NOW + after)
        for after in (told_after, told_after + 9000)
    ]
    for order in (told, told[::-1]):
        await tenant_connection.execute("SAVEPOINT untold")
        await deliver(tenant_connection, *order)
        found = await turns(tenant_connection)
        await tenant_connection.execute("ROLLBACK TO untold")

        assert sorted(row["created_at"].timestamp() for row in found) == kept_turns
        assert {row["facts"]["subscription_id"] for row in found} == {"sub_1"}


async def test_a_database_from_before_turns_gets_those_of_the_states_it_has(tenant_connection: TenantConnection):
    for number, after in enumerate((5, 9000)):
        told = subscription(f"sub_{number}", item(), USAGE, status="active")
        await deliver(tenant_connection, event("customer.subscription.updated", told, event_id=f"evt_{number}", created=NOW + after))
    projected = await turns(tenant_connection)
    (backfill,) = re.findall(r"INSERT INTO states .*?DO NOTHING", render_upgrade("tenant"), re.DOTALL)

    await tenant_connection.execute("DELETE FROM states WHERE kind = 'turn'")
    await tenant_connection.execute(backfill)

    assert await turns(tenant_connection) == projected
    assert len(projected) == 3
