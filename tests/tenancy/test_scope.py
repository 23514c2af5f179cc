"""The one door: one transaction, one tenant's schema on the path, and nothing left behind however it ends."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billingwatch.postgres.connections import UNAVAILABLE, TenantConnection
from billingwatch.tenancy.isolation import checked_schema_name, new_schema_name, new_shared_schema_name
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.tenants import Tenant

ADD = (
    "INSERT INTO customers (customer_id, deleted, created_at, updated_at, event_id, version) VALUES ($1, false, now(), now(), 'evt_1', '1')"
)
LIST = "SELECT customer_id FROM customers ORDER BY customer_id"
BAD_NAMES = [
    "",
    "public",
    "control",
    "pg_catalog",
    "tenant_",
    "tenant_aaaaaaaaa",  # one short
    "tenant_aaaaaaaaaaa",  # one long
    "tenant_aaaaaaaaa1",  # base32 has no 1
    "tenant_AAAAAAAAAA",
    "tenant_aaaaaaaaaa\n",
    " tenant_aaaaaaaaaa",
    '"tenant_aaaaaaaaaa"',
    "tenantss_aaaaaaaaaa",
    "tenant_aaaaaaaaaa, public",
    "tenant_aaaaaaaaaa'; DROP SCHEMA control CASCADE; --",
    "tenant_aaaaaaaaa\u0430",  # a Cyrillic a
]
STEPS = range(1, 9)  # turns of the event loop that a round trip or two to the server takes


class Schema:
    def __init__(self, schema_name: str) -> None:
        self.tenant_id = 1
        self.schema_name = schema_name


async def assert_clean(connection: asyncpg.Connection) -> None:
    """The connection is in no transaction, has no tenant on its path, and so finds no table."""
    assert not connection.is_in_transaction()
    assert await connection.fetchval("SHOW search_path") == "pg_catalog"
    with pytest.raises(asyncpg.UndefinedTableError, match='relation "customers" does not exist'):
        await connection.fetch(LIST)


async def customers(connection: asyncpg.Connection, tenant: Tenant) -> list[str]:
    async with tenant_scope(connection, tenant) as scoped:
        return [row["customer_id"] for row in await scoped.fetch(LIST)]


async def test_a_scope_has_one_schema_on_its_path(connect, tenant):
    connection = await connect()

    async with tenant_scope(connection, tenant) as scoped:
        path = await scoped.fetchval("SHOW search_path")

    assert path == tenant.schema_name


async def test_a_scope_commits_on_a_clean_exit_and_leaves_no_path(connect, tenant):
    connection = await connect()

    async with tenant_scope(connection, tenant) as scoped:
        await scoped.execute(ADD, "cus_1")

    await assert_clean(connection)
    assert await customers(connection, tenant) == ["cus_1"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
async def test_a_scope_rolls_back_on_any_error(connect, tenant, error):
    connection = await connect()

    with pytest.raises(error):
        async with tenant_scope(connection, tenant) as scoped:
            await scoped.execute(ADD, "cus_1")
            raise error

    await assert_clean(connection)
    assert await customers(connection, tenant) == []


async def test_a_failed_statement_rolls_back(connect, tenant):
    connection = await connect()

    with pytest.raises(asyncpg.DivisionByZeroError):
        async with tenant_scope(connection, tenant) as scoped:
            await scoped.execute(ADD, "cus_1")
            await scoped.execute("SELECT 1 / 0")

    await assert_clean(connection)
    assert await customers(connection, tenant) == []


async def test_a_failed_statement_that_was_caught_inside_raises_at_the_commit(connect, tenant):
    connection = await connect()

    with pytest.raises(asyncpg.InFailedSQLTransactionError, match="rolled back"):
        async with tenant_scope(connection, tenant) as scoped:
            await scoped.execute(ADD, "cus_1")
            with pytest.raises(asyncpg.UniqueViolationError):
                await scoped.execute(ADD, "cus_1")

    await assert_clean(connection)
    assert await customers(connection, tenant) == []


async def test_a_failed_statement_inside_a_savepoint_spoils_nothing(connect, tenant):
    connection = await connect()

    async with tenant_scope(connection, tenant) as scoped:
        await scoped.execute(ADD, "cus_1")
        await scoped.execute("SAVEPOINT second")
        with pytest.raises(asyncpg.UniqueViolationError):
            await scoped.execute(ADD, "cus_1")
        await scoped.execute("ROLLBACK TO second")

    assert await customers(connection, tenant) == ["cus_1"]


async def test_a_scope_cancelled_in_mid_statement_leaves_a_clean_connection(connect, tenant):
    connection = await connect()
    asleep = asyncio.Event()

    async def sleep() -> None:
        async with tenant_scope(connection, tenant) as scoped:
            await scoped.execute(ADD, "cus_1")
            asleep.set()
            await scoped.execute("SELECT pg_sleep(30)")

    task = asyncio.create_task(sleep())
    await asleep.wait()
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await assert_clean(connection)
    assert await customers(connection, tenant) == []


@pytest.mark.parametrize("readonly", [False, True])
async def test_a_scope_cancelled_while_it_opens_leaves_a_clean_connection(connect, tenant, readonly):
    connection = await connect()

    async def enter() -> None:
        async with tenant_scope(connection, tenant, readonly=readonly):
            await asyncio.sleep(30)

    for steps in STEPS:
        task = asyncio.create_task(enter())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await assert_clean(connection)


async def test_a_scope_cancelled_while_it_commits_leaves_a_clean_connection(connect, tenant):
    connection = await connect()
    leaving = asyncio.Event()

    async def add(customer_id: str) -> None:
        async with tenant_scope(connection, tenant) as scoped:
            await scoped.execute(ADD, customer_id)
            leaving.set()

    for steps in STEPS:
        leaving.clear()
        task = asyncio.create_task(add(f"cus_{steps}"))
        await leaving.wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        done = await asyncio.gather(task, return_exceptions=True)
        await assert_clean(connection)
        # Whoever is told that it ended well finds the row; whoever is cancelled may find it.
        assert done[0] is not None or f"cus_{steps}" in await customers(connection, tenant)


async def test_a_scope_whose_connection_dies_raises_and_closes_it(connect, tenant):
    connection, admin = await connect(), await connect()

    with pytest.raises(UNAVAILABLE):
        async with tenant_scope(connection, tenant) as scoped:
            await scoped.execute(ADD, "cus_1")
            await admin.execute("SELECT pg_terminate_backend($1)", scoped.get_server_pid())
            await scoped.execute(ADD, "cus_2")

    assert connection.is_closed()
    assert await customers(admin, tenant) == []


async def test_a_scope_cannot_open_inside_another_transaction(connect, provision_tenant):
    connection = await connect()
    (one, _), (other, _) = await provision_tenant("one"), await provision_tenant("other")

    with pytest.raises(RuntimeError, match="in a transaction"):
        async with tenant_scope(connection, one) as scoped:
            await scoped.execute(ADD, "cus_1")
            async with tenant_scope(connection, other) as nested:
                await nested.execute(ADD, "cus_2")

    await assert_clean(connection)
    assert await customers(connection, one) == await customers(connection, other) == []


async def test_a_read_only_scope_reads_and_cannot_write(connect, tenant):
    connection = await connect()
    async with tenant_scope(connection, tenant) as scoped:
        await scoped.execute(ADD, "cus_1")

    async with tenant_scope(connection, tenant, readonly=True) as reading:
        seen = await reading.fetchval(LIST)
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        async with tenant_scope(connection, tenant, readonly=True) as reading:
            await reading.execute(ADD, "cus_2")

    assert seen == "cus_1"
    assert await customers(connection, tenant) == ["cus_1"]


async def test_a_scope_of_a_schema_that_is_gone_finds_no_table(connect, control, tenant):
    connection = await connect()
    await control.execute(f"DROP SCHEMA {tenant.schema_name} CASCADE")

    with pytest.raises(asyncpg.UndefinedTableError, match='relation "customers" does not exist'):
        async with tenant_scope(connection, tenant) as scoped:
            await scoped.fetch(LIST)

    await assert_clean(connection)


async def test_a_bad_schema_name_never_reaches_the_server(connect):
    connection = await connect()
    sent: list[str] = []
    connection.add_query_logger(lambda query: sent.append(query.query))

    for schema_name in BAD_NAMES:
        with pytest.raises(ValueError, match="not the name of a tenant schema"):
            async with tenant_scope(connection, Schema(schema_name)):
                pytest.fail(f"the scope of {schema_name!r} opened")

    assert sent == []


@given(st.text())
def test_no_text_but_an_opaque_name_is_a_schema_name(text):
    with pytest.raises(ValueError, match="not the name of a tenant schema"):
        checked_schema_name(text)
    assert checked_schema_name(new_schema_name())
    assert checked_schema_name(new_shared_schema_name())


async def test_the_tables_of_a_scope_are_those_of_the_tenants_schema(tenant_connection: TenantConnection, tenant):
    resolved = await tenant_connection.fetchval("SELECT 'events'::regclass::oid")

    expected = await tenant_connection.fetchval("SELECT to_regclass($1)::oid", f"{tenant.schema_name}.events")

    assert resolved == expected
