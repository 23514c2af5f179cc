"""Row isolation: all tenants share one schema, and row-level security does what a schema of one's own does in the other isolation."""

from __future__ import annotations

import asyncpg
import pytest

from billingwatch.errors import IsolationMismatch
from billingwatch.ingest.recorder import record_events
from billingwatch.postgres.tenant_plane import metadata
from billingwatch.tenancy.analysts import analyst_dsn, create_analyst, revoke_analyst
from billingwatch.tenancy.migrate import ensure_control_plane
from billingwatch.tenancy.scope import tenant_scope

pytestmark = pytest.mark.parametrize("isolation", ["row"], indirect=True, scope="module")

ADD = "INSERT INTO customers (customer_id, name, deleted, created_at, updated_at, event_id, version) VALUES ($1, $2, false, now(), now(), 'evt_1', '1')"
ADD_FOR = (
    "INSERT INTO customers (tenant_id, customer_id, deleted, created_at, updated_at, event_id, version)"
    " VALUES ($1, 'cus_1', false, now(), now(), 'evt_1', '1')"
)


@pytest.fixture
async def pair(control, provision_tenant):
    """Two tenants with a customer each."""
    tenants = [(await provision_tenant(name))[0] for name in ("one", "other")]
    for tenant in tenants:
        async with tenant_scope(control, tenant) as scoped:
            await scoped.execute(ADD, "cus_1", tenant.name)
    return tenants


async def test_a_tenant_is_a_row_of_the_control_plane_and_nothing_else(control, provision_tenant):
    relations = "SELECT count(*) FROM pg_class"
    before = await control.fetchval(relations)

    one, other = [(await provision_tenant(name))[0] for name in ("one", "other")]

    assert one.schema_name == other.schema_name == await control.fetchval("SELECT schema_name FROM control.isolation")
    assert await control.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tenant%'") == 1
    assert await control.fetchval(relations) == before


async def test_a_scope_runs_as_a_role_that_row_level_security_binds(control, tenant):
    async with tenant_scope(control, tenant) as scoped:
        inside = await scoped.fetchrow("SELECT rolname, rolsuper, rolbypassrls, rolcanlogin FROM pg_roles WHERE rolname = current_user")
    outside = await control.fetchrow("SELECT current_user = session_user, current_setting('billingwatch.tenant', true)")

    assert tuple(inside) == (tenant.schema_name, False, False, False)
    assert tuple(outside) == (True, "")


@pytest.mark.parametrize("setting", [None, ""])
async def test_a_forgotten_scope_sees_nothing_and_writes_nothing(connect, pair, setting):
    connection = await connect()
    await connection.execute(f"SET ROLE {pair[0].schema_name}; SET search_path = {pair[0].schema_name}")
    if setting is not None:
        await connection.execute(f"SET billingwatch.tenant = '{setting}'")

    seen = {table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in metadata.tables}
    changed = await connection.execute("UPDATE customers SET name = 'mine'")
    with pytest.raises(asyncpg.PostgresError) as refused:
        await connection.execute(ADD, "cus_2", "nobody's")

    assert seen == dict.fromkeys(metadata.tables, 0)
    assert changed == "UPDATE 0"
    assert isinstance(refused.value, asyncpg.InsufficientPrivilegeError | asyncpg.NotNullViolationError)


async def test_a_forgotten_filter_reaches_one_tenants_rows(control, pair):
    one, other = pair
    async with tenant_scope(control, one) as scoped:
        seen = [row["name"] for row in await scoped.fetch("SELECT name FROM customers")]
        changed = await scoped.execute("UPDATE customers SET name = 'changed'")
        removed = await scoped.execute("DELETE FROM customers")

    async with tenant_scope(control, other) as scoped:
        left = [row["name"] for row in await scoped.fetch("SELECT name FROM customers")]

    assert (seen, changed, removed, left) == (["one"], "UPDATE 1", "DELETE 1", ["other"])


async def test_another_tenants_id_is_refused(control, pair):
    one, other = pair

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with tenant_scope(control, one) as scoped:
            await scoped.execute(ADD_FOR, other.tenant_id)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with tenant_scope(control, one) as scoped:
            await scoped.execute("UPDATE customers SET tenant_id = $1", other.tenant_id)

    async with tenant_scope(control, one) as scoped:
        assert await scoped.fetchval("SELECT tenant_id FROM customers") == one.tenant_id


async def test_every_table_and_every_index_begins_with_the_tenant_and_no_table_is_left_open(control, tenant):
    tables = await control.fetch(
        "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AS bound, a.attname AS first"
        " FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = 1"
        " WHERE c.relnamespace = $1::text::regnamespace AND c.relkind = 'r'",
        tenant.schema_name,
    )
    indexes = await control.fetch(
        "SELECT i.relname, a.attname AS first FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid"
        " JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0] WHERE i.relnamespace = $1::text::regnamespace",
        tenant.schema_name,
    )

    assert {row["relname"]: (row["bound"], row["first"]) for row in tables} == dict.fromkeys(metadata.tables, (True, "tenant_id"))
    assert len(indexes) == len(metadata.tables) + sum(len(table.indexes) for table in metadata.tables.values()) + 1
    assert {row["first"] for row in indexes} == {"tenant_id"}


async def test_a_batch_of_many_tenants_is_one_insert(control, provision_tenant, make_delivery):
    tenants = [(await provision_tenant(f"tenant-{number}"))[0] for number in range(5)]
    await control.execute(
        "CREATE SEQUENCE control.inserts; GRANT USAGE ON control.inserts TO PUBLIC;"
        " CREATE FUNCTION control.count_insert() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM nextval('control.inserts'); RETURN NULL; END $$;"
        f" CREATE TRIGGER counted AFTER INSERT ON {tenants[0].schema_name}.events FOR EACH STATEMENT EXECUTE FUNCTION control.count_insert()"
    )
    deliveries = [make_delivery(tenant, f"evt_{number}") for number in range(4) for tenant in tenants]

    first = await record_events(control, deliveries)
    inserts = await control.fetchval("SELECT last_value FROM control.inserts")
    second = await record_events(control, [*deliveries, make_delivery(tenants[0], "evt_9")])

    assert first == [True] * 20
    assert inserts == 1
    assert second == [False] * 20 + [True]
    for tenant in tenants[1:]:
        async with tenant_scope(control, tenant) as scoped:
            stored = await scoped.fetch("SELECT tenant_id, event_id, deliveries FROM events ORDER BY event_id")
        assert [tuple(row) for row in stored] == [(tenant.tenant_id, f"evt_{number}", 2) for number in range(4)]


async def test_recording_leaves_its_rights_behind_in_the_function(control, tenant):
    rights = await control.fetchrow(
        "SELECT p.prosecdef, r.rolname, r.rolcanlogin, r.rolsuper, has_function_privilege('public', p.oid, 'EXECUTE') AS anybody"
        " FROM pg_proc AS p JOIN pg_roles AS r ON r.oid = p.proowner WHERE p.oid = 'control.record_events'::regproc"
    )
    policies = await control.fetch(
        "SELECT DISTINCT tablename FROM pg_policies WHERE $1::text = ANY (roles)", f"{tenant.schema_name}_recorder"
    )

    assert tuple(rights) == (True, f"{tenant.schema_name}_recorder", False, False, False)
    assert [row["tablename"] for row in policies] == ["events"]


async def test_an_analyst_who_sets_another_tenant_sees_no_more(control, database, pair):
    one, other = pair
    made = await create_analyst(control, one.name)
    try:
        session = await asyncpg.connect(analyst_dsn(database, made.role, made.password))
        await session.execute(f"SET billingwatch.tenant = '{other.tenant_id}'; SET billingwatch.operator = 'on'")
        seen = {table: await session.fetch(f"SELECT DISTINCT tenant_id FROM {table}") for table in ("customers", "events", "charges")}
        for role in (one.schema_name, f"{one.schema_name}_recorder"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await session.execute(f"SET ROLE {role}")
        await session.execute(f"SET ROLE {one.schema_name}_analysts")
        as_group = await session.fetch("SELECT name FROM customers")
        await session.close()
    finally:
        await revoke_analyst(control, made.role)

    assert {table: [row["tenant_id"] for row in rows] for table, rows in seen.items()} == {
        "customers": [one.tenant_id],
        "events": [],
        "charges": [],
    }
    assert as_group == []


async def test_a_database_keeps_the_isolation_it_was_set_up_with(control):
    with pytest.raises(IsolationMismatch, match="apart by row, and BILLINGWATCH_ISOLATION asks for schema") as refused:
        await ensure_control_plane(control)

    assert refused.value.hint is not None
    assert refused.value.hint.startswith("set BILLINGWATCH_ISOLATION=row")
    await ensure_control_plane(control, isolation="row")
