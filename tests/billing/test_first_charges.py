"""The first payments of a customer in each currency are remembered, in whatever order they are told."""

from __future__ import annotations

from random import Random
from typing import Any

from billingwatch.billing.readers import read_event
from billingwatch.billing.states import FIRST_CHARGES
from billingwatch.billing.store import project
from billingwatch.postgres.connections import TenantConnection

from .payloads import NOW, charge, event

Json = dict[str, Any]


def paid(number: int, **fields: Any) -> Json:
    return event("charge.succeeded", charge(f"ch_{number:02d}", created=NOW + number, **fields), event_id=f"evt_{number:02d}")


async def first(tenant: TenantConnection, customer_and_currency: str = "cus_1 usd") -> list[str]:
    rows = await tenant.fetch(
        "SELECT s.facts ->> 'charge_id' AS charge_id FROM states AS s WHERE s.object_id = $1 AND s.kind = 'first_charge' ORDER BY s.version LIMIT $2",
        customer_and_currency,
        FIRST_CHARGES,
    )
    return [row["charge_id"] for row in rows]


async def test_the_first_payments_are_known_whatever_order_they_are_told_in(tenant_connection: TenantConnection):
    events = [paid(number) for number in range(12)]
    for seed in range(5):
        await tenant_connection.execute("SAVEPOINT untold")
        for one in Random(seed).sample(events, len(events)):
            await project(tenant_connection, read_event(one))

        assert await first(tenant_connection) == [f"ch_{number:02d}" for number in range(FIRST_CHARGES)]
        await tenant_connection.execute("ROLLBACK TO untold")


async def test_payments_told_newest_first_leave_no_surplus(tenant_connection: TenantConnection):
    for number in reversed(range(12)):
        await project(tenant_connection, read_event(paid(number)))

    assert await tenant_connection.fetchval("SELECT count(*) FROM states") == FIRST_CHARGES
    assert await first(tenant_connection) == [f"ch_{number:02d}" for number in range(FIRST_CHARGES)]


async def test_later_payments_are_not_kept(tenant_connection: TenantConnection):
    for number in range(12):
        await project(tenant_connection, read_event(paid(number)))

    assert await tenant_connection.fetchval("SELECT count(*) FROM states") == FIRST_CHARGES


async def test_each_currency_and_customer_has_first_payments_of_its_own(tenant_connection: TenantConnection):
    for one in (paid(1), paid(2, currency="eur"), paid(3, customer="cus_2")):
        await project(tenant_connection, read_event(one))

    assert [await first(tenant_connection, name) for name in ("cus_1 usd", "cus_1 eur", "cus_2 usd")] == [["ch_01"], ["ch_02"], ["ch_03"]]


async def test_what_failed_or_was_only_authorized_or_has_no_customer_is_no_payment(tenant_connection: TenantConnection):
    for one in (paid(1, status="failed"), paid(2, captured=False), paid(3, customer=None), paid(4, status="pending")):
        await project(tenant_connection, read_event(one))

    assert await tenant_connection.fetchval("SELECT count(*) FROM states") == 0


async def test_one_that_is_found_is_told_once(tenant_connection: TenantConnection):
    told = [change.table for _ in range(2) for change in await project(tenant_connection, read_event(paid(1)))]

    assert told == ["charges", "first_charge_states"]
