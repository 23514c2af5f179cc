"""Row isolation: what the planner tells an analyst does not depend on the rows of another tenant."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from billingwatch.postgres.connections import ControlConnection
from billingwatch.tenancy.analysts import ANALYST_TABLES, analyst_dsn, create_analyst, revoke_analyst
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.tenants import Tenant

pytestmark = pytest.mark.row_isolation

WHALE, AMOUNT = "cus_WHALE_of_the_other", 4_242_424
CHARGES = """
INSERT INTO charges (charge_id, payment_id, from_invoice, payment_method_type, customer_id, amount, amount_captured,
                     amount_refunded, currency, status, captured, disputed, created_at, updated_at, event_id, version)
SELECT 'ch_' || n, 'pi_' || n, false, 'card', CASE WHEN n % 2 = 0 THEN $2 ELSE 'cus_' || n END,
       CASE WHEN n % 2 = 0 THEN $3::bigint ELSE n END, 0, 0, 'usd', 'succeeded',
       true, false, now() - n * interval '1 minute', now(), 'evt_' || n, '1'
FROM generate_series(1, $1::integer) AS n
"""
CUSTOMERS = """
INSERT INTO customers (customer_id, email, deleted, created_at, updated_at, event_id, version)
SELECT 'cus_' || n, $2 || lpad(n::text, 4, '0') || '@example.com', false, now(), now(), 'evt_' || n, '1'
FROM generate_series(1, $1::integer) AS n
"""


async def fill(control: ControlConnection, tenant: Tenant, *, rows: int, whale: str, amount: int, person: str) -> None:
    async with tenant_scope(control, tenant) as scoped:
        await scoped.execute(CHARGES, rows, whale, amount)
        await scoped.execute(CUSTOMERS, rows, person)


@pytest.fixture
async def pair(control: ControlConnection, provision_tenant) -> list[Tenant]:
    own, other = (await provision_tenant("own"))[0], (await provision_tenant("other"))[0]
    await fill(control, own, rows=200, whale="cus_own", amount=1, person="self")
    await fill(control, other, rows=2000, whale=WHALE, amount=AMOUNT, person="person")
    for table in ANALYST_TABLES:
        await control.execute(f"ANALYZE {own.schema_name}.{table}")
    return [own, other]


@pytest.fixture
async def analyst(pair: list[Tenant], control: ControlConnection, database: str) -> AsyncIterator[asyncpg.Connection]:
    made = await create_analyst(control, "own")
    session = await asyncpg.connect(analyst_dsn(database, made.role, made.password))
    yield session
    await session.close()
    await revoke_analyst(control, made.role)


async def estimate(analyst: asyncpg.Connection, statement: str) -> dict[str, object]:
    """The whole plan, without the text of the condition."""
    plan = await analyst.fetchval(f"EXPLAIN (FORMAT json) {statement}")
    return json.loads(re.sub(r'"(Filter|Index Cond|Recheck Cond)": "(\\.|[^"])*"', r'"\1": ""', plan))


async def test_statistics_of_the_tables_hold_the_other_tenants_values(control: ControlConnection, pair: list[Tenant]) -> None:
    """Otherwise the two attacks below would prove nothing."""
    found = await control.fetchrow(
        "SELECT max(most_common_vals::text) FILTER (WHERE (tablename, attname) = ('charges', 'customer_id')) AS ids,"
        " max(histogram_bounds::text) FILTER (WHERE (tablename, attname) = ('customers', 'email')) AS emails"
        " FROM pg_stats WHERE schemaname = $1",
        pair[0].schema_name,
    )

    assert WHALE in found["ids"]
    assert "person0" in found["emails"]


@pytest.mark.parametrize(
    ("existing", "absent"),
    [
        (f"customer_id = '{WHALE}'", "customer_id = 'cus_nobody_at_all'"),
        (f"amount = {AMOUNT}", "amount = 4242425"),
        (f"customer_id IN ('{WHALE}', 'a')", "customer_id IN ('b', 'a')"),
        (f"customer_id LIKE '{WHALE}%'", "customer_id LIKE 'cus_nobody_at_all_%'"),
        (f"tenant_id = 2 AND customer_id = '{WHALE}'", "tenant_id = 3 AND customer_id = 'cus_nobody_at_all'"),
        ("created_at > now() - interval '1 day'", "created_at > now() - interval '10 years'"),
    ],
)
async def test_estimate_of_equality_is_the_same_for_unknown_values(analyst: asyncpg.Connection, existing: str, absent: str) -> None:
    statement = "SELECT * FROM charges WHERE "

    assert await estimate(analyst, statement + existing) == await estimate(analyst, statement + absent)
    assert await analyst.fetch(f"SELECT 1 FROM charges WHERE customer_id = '{WHALE}'") == []


async def test_bisection_of_a_histogram_finds_no_bound(analyst: asyncpg.Connection) -> None:
    """The attack multiplies the rows, so that the rounding of the estimate hides nothing."""
    statement = "SELECT 1 FROM customers AS c CROSS JOIN generate_series(1, 1000000000) WHERE c.email > '{}'"

    plans = [await estimate(analyst, statement.format(bound)) for bound in ("", "a", "person", "person0067", "person0999", "q", "~")]

    assert all(plan == plans[0] for plan in plans)


async def test_estimated_groups_do_not_depend_on_the_other_tenant(
    analyst: asyncpg.Connection, control: ControlConnection, pair: list[Tenant]
) -> None:
    statement = "SELECT customer_id, count(*) FROM charges GROUP BY customer_id"
    before = await estimate(analyst, statement)

    async with tenant_scope(control, pair[1]) as scoped:
        await scoped.execute("UPDATE charges SET customer_id = 'cus_one'")
    await control.execute(f"ANALYZE {pair[0].schema_name}.charges")
    after = await estimate(analyst, statement)

    [groups] = {plan[0]["Plan"]["Plan Rows"] for plan in (before, after)}
    assert groups == 200  # PostgreSQL's default for a column without statistics


async def test_analyst_reads_neither_tables_nor_their_statistics(analyst: asyncpg.Connection, pair: list[Tenant]) -> None:
    for table in ANALYST_TABLES:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await analyst.fetch(f"EXPLAIN SELECT * FROM {pair[0].schema_name}.{table}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await analyst.execute(f"SET ROLE {pair[0].schema_name}_reader")

    assert await analyst.fetchval("SELECT count(*) FROM pg_stats WHERE schemaname LIKE 'tenants%'") == 0
    assert await analyst.fetchval("SELECT count(*) FROM charges") == 200
