"""Row isolation: all tenants share one schema, and row-level security does what a schema of one's own does in the other isolation."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import asyncpg
import pytest

from billingwatch.errors import ControlPlaneStays, InputInvalid, IsolationMismatch, RolesMissing, RowIsolationNotPermitted
from billingwatch.ingest.record import record_all, record_events
from billingwatch.postgres import migrations, revisions
from billingwatch.postgres.connections import ControlConnection, open_connection
from billingwatch.postgres.tenant_plane import metadata
from billingwatch.simulate.payloads import charge_event_payloads
from billingwatch.tenancy.analysts import analyst_dsn, create_analyst, revoke_analyst, scram_verifier
from billingwatch.tenancy.fleet import Migrated, migrate_fleet
from billingwatch.tenancy.fleet_plan import Options, plan_fleet
from billingwatch.tenancy.lanes import Lane, control_plane
from billingwatch.tenancy.migrate import FleetState, ensure_control_plane, fleet_state, take_back_control_plane
from billingwatch.tenancy.provision import provision
from billingwatch.tenancy.registry import load_tenant
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.tenants import Tenant
from billingwatch.visit import visit

pytestmark = pytest.mark.row_isolation

ADD = "INSERT INTO customers (customer_id, name, deleted, created_at, updated_at, event_id, version) VALUES ($1, $2, false, now(), now(), 'evt_1', '1')"
ADD_FOR = (
    "INSERT INTO customers (tenant_id, customer_id, deleted, created_at, updated_at, event_id, version)"
    " VALUES ($1, 'cus_1', false, now(), now(), 'evt_1', '1')"
)
BEFORE = migrations.head("tenant")  # what the revision that a test adds comes after
INITIALISED = "SELECT to_regclass('control.isolation') IS NOT NULL"


@pytest.fixture
def add_revision(release) -> Callable[..., str]:
    """Give the next release one revision more."""

    def add(plane: migrations.Plane, *operations: str, back: str = "pass") -> str:
        revision: str = release.write(plane, "\n    ".join(operations), back, declarations="import sqlalchemy as sa")
        return revision

    return add


async def migrate(control: ControlConnection, dsn: str, **options: object) -> list[Migrated]:
    return (await migrate_fleet(control, dsn, Options(isolation="row", **options))).results


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
    schemas = "SELECT array_agg(nspname::text ORDER BY nspname) FROM pg_namespace WHERE nspname LIKE 'tenant%'"
    before = await control.fetchval(relations)

    one, other = [(await provision_tenant(name))[0] for name in ("one", "other")]

    assert one.schema_name == other.schema_name == await control.fetchval("SELECT schema_name FROM control.isolation")
    assert await control.fetchval(schemas) == [one.schema_name, f"{one.schema_name}_analysts"]
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


@pytest.mark.parametrize("function", ["record_events", "record_body"])
async def test_recording_leaves_its_rights_behind_in_the_function(control, tenant, function):
    rights = await control.fetchrow(
        "SELECT p.prosecdef, r.rolname, r.rolcanlogin, r.rolsuper, has_function_privilege('public', p.oid, 'EXECUTE') AS anybody"
        f" FROM pg_proc AS p JOIN pg_roles AS r ON r.oid = p.proowner WHERE p.oid = 'control.{function}'::regproc"
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


class Service:
    """A service whose role is no superuser: it may make roles and schemas, in a database of another role."""

    def __init__(self, control: ControlConnection, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> None:
        self.control = control
        self.connect = connect


@pytest.fixture
async def role(database) -> AsyncIterator[tuple[str, str]]:
    """Name and DSN of such a role, with an empty database of its own."""
    admin = await asyncpg.connect(database)
    name = f"service_{uuid.uuid4().hex[:12]}"
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy")
    await admin.execute(f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD '{scram_verifier(name, os.urandom(16))}'")
    await admin.execute(f"GRANT CREATE ON DATABASE {name} TO {name}")
    yield name, analyst_dsn(urlsplit(database)._replace(path=f"/{name}").geturl(), name, name)
    superuser = await asyncpg.connect(urlsplit(database)._replace(path=f"/{name}").geturl())
    shared = await superuser.fetchval("SELECT schema_name FROM control.isolation") if await superuser.fetchval(INITIALISED) else None
    await superuser.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    for each in [f"{shared}{suffix}" for suffix in ("", "_recorder", "_analysts", "_reader") if shared] + [name]:
        await admin.execute(f"DROP ROLE {each}")
    await admin.close()


@pytest.fixture
async def service(role) -> AsyncIterator[Service]:
    opened: list[asyncpg.Connection] = []

    async def connect() -> asyncpg.Connection:
        opened.append(await open_connection(role[1], "tests service"))
        return opened[-1]

    control = ControlConnection(await connect())
    await ensure_control_plane(control, isolation="row")
    yield Service(control, connect)
    for connection in opened:
        await connection.close()


@pytest.fixture
async def watched(service, seal) -> list[Tenant]:
    """Two tenants of that service with a customer each."""
    tenants = []
    for name in ("one", "other"):
        await provision(service.control, seal, name)
        tenants.append(await load_tenant(service.control, seal, name))
        async with tenant_scope(service.control, tenants[-1]) as scoped:
            await scoped.execute(ADD, "cus_1", name)
    return tenants


async def test_the_owner_of_the_tables_sees_no_row_outside_a_scope_unless_it_says_so(service, watched):
    customers = f"{watched[0].schema_name}.customers"

    unsaid = await service.control.fetchval(f"SELECT count(*) FROM {customers}")
    async with service.control.transaction():
        await service.control.execute("SET LOCAL billingwatch.operator = 'on'")
        said = await service.control.fetchval(f"SELECT count(*) FROM {customers}")

    assert (unsaid, said) == (0, 2)
    assert not await service.control.fetchval("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")


async def test_a_service_that_is_no_superuser_records_and_inherits_nothing_from_the_recorder(service, watched, make_delivery):
    deliveries = [make_delivery(tenant, "evt_1") for tenant in watched]

    recorded = await record_events(service.control, deliveries)

    assert recorded == [True, True]
    assert await service.control.fetchval(f"SELECT count(*) FROM {watched[0].schema_name}.events") == 0
    assert not await service.control.fetchval("SELECT pg_has_role(current_user, $1::text, 'USAGE')", f"{watched[0].schema_name}_recorder")
    for tenant in watched:
        async with tenant_scope(service.control, tenant) as scoped:
            assert await scoped.fetchval("SELECT count(*) FROM events") == 1


async def test_a_backfill_reaches_the_rows_of_every_tenant_and_the_tenants_come_to_head_together(service, watched, database, add_revision):
    revision = add_revision(
        "tenant", "op.add_column('customers', sa.Column('nickname', sa.Text()))", "op.execute('UPDATE customers SET nickname = name')"
    )

    behind = await fleet_state(service.control)
    done = await migrate(service.control, database)

    assert behind == FleetState(behind=2)
    assert done == [Migrated(name=watched[0].schema_name, from_revision=BEFORE, to_revision=revision, error=None)]
    assert await fleet_state(service.control) == FleetState()
    assert await migrate(service.control, database) == []
    assert await service.control.fetch("SELECT DISTINCT revision FROM control.tenants UNION SELECT revision FROM control.isolation") == [
        (revision,)
    ]
    assert await service.control.fetchval("SELECT current_setting('billingwatch.operator', true)") in {None, ""}
    for tenant in watched:
        async with tenant_scope(service.control, tenant) as scoped:
            assert await scoped.fetchval("SELECT nickname FROM customers") == tenant.name


async def test_a_statement_of_a_revision_that_adds_rows_adds_each_tenants_own(service, watched, database, add_revision):
    add_revision(
        "tenant",
        'op.execute("INSERT INTO customers (customer_id, name, deleted, created_at, updated_at, event_id, version)'
        " SELECT 'copy of ' || customer_id, name, deleted, created_at, updated_at, event_id, version FROM customers\")",
    )

    done = await migrate(service.control, database)

    assert [one.error for one in done] == [None]
    for tenant in watched:
        async with tenant_scope(service.control, tenant) as scoped:
            rows = await scoped.fetch("SELECT customer_id, name FROM customers ORDER BY customer_id")
        assert [tuple(row) for row in rows] == [("copy of cus_1", tenant.name), ("cus_1", tenant.name)]


async def test_a_table_that_a_later_revision_makes_is_shared_and_guarded_like_the_first(service, watched, database, add_revision):
    add_revision(
        "tenant",
        "op.create_table('channels', sa.Column('channel_id', sa.Integer(), nullable=False), sa.Column('kind', sa.Text()),"
        " sa.Column('address', sa.Text()), sa.PrimaryKeyConstraint('channel_id', name='channels_pkey'))",
        "op.create_unique_constraint('channels_kind_address_key', 'channels', ['kind', 'address'])",
        "op.create_index('channels_kind_idx', 'channels', ['kind', sa.text('lower(address)')], postgresql_where=sa.text('kind IS NOT NULL'))",
    )

    done = [one.error for one in await migrate(service.control, database)]
    for tenant in watched:
        async with tenant_scope(service.control, tenant) as scoped:
            await scoped.execute("INSERT INTO channels (channel_id, kind, address) VALUES (1, 'email', 'ada@example')")
            assert await scoped.fetchval("SELECT count(*) FROM channels") == 1
    indexes = await service.control.fetch(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = $1 AND tablename = 'channels' ORDER BY indexname",
        watched[0].schema_name,
    )

    assert done == [None]
    assert {row["indexname"]: row["indexdef"].partition("USING btree ")[2] for row in indexes} == {
        "channels_kind_address_key": "(tenant_id, kind, address)",
        "channels_kind_idx": "(tenant_id, kind, lower(address)) WHERE (kind IS NOT NULL)",
        "channels_pkey": "(tenant_id, channel_id)",
    }


async def test_a_migration_that_fails_is_reported_and_leaves_every_tenant_where_it_was(service, watched, database, add_revision):
    add_revision("tenant", "op.add_column('customers', sa.Column('nickname', sa.Text()))", "op.execute('SELECT 1 / 0')")

    done = await migrate(service.control, database)

    assert [(one.name, one.error) for one in done] == [(watched[0].schema_name, "division by zero")]
    assert await service.control.fetch("SELECT DISTINCT revision FROM control.tenants UNION SELECT revision FROM control.isolation") == [
        (BEFORE,)
    ]
    async with tenant_scope(service.control, watched[0]) as scoped:
        assert await scoped.fetchval("SELECT count(*) FROM anomalies_open") == 0


async def test_the_last_revision_is_taken_back_and_taken_again_for_all_tenants(service, watched, database, add_revision):
    columns = (
        "SELECT count(*) FROM pg_attribute WHERE attrelid = ($1 || '.customers')::regclass AND attname = 'nickname' AND NOT attisdropped"
    )
    add_revision("tenant", "op.add_column('customers', sa.Column('nickname', sa.Text()))", back="op.drop_column('customers', 'nickname')")
    await migrate(service.control, database)

    back = await migrate(service.control, database, back=True)
    without = await service.control.fetchval(columns, watched[0].schema_name)
    again = await migrate(service.control, database)

    assert [(one.to_revision, one.error) for one in (*back, *again)] == [(BEFORE, None), (migrations.head("tenant"), None)]
    assert without == 0
    assert await service.control.fetchval(columns, watched[0].schema_name) == 1
    async with tenant_scope(service.control, watched[0]) as scoped:
        assert await scoped.fetchval("SELECT count(*) FROM anomalies_open") == 0


async def test_no_tenant_is_migrated_without_the_others(service, watched, database, add_revision):
    add_revision("tenant", "op.add_column('customers', sa.Column('nickname', sa.Text()))")

    with pytest.raises(InputInvalid, match="together"):
        await migrate(service.control, database, names=(watched[0].name,))
    with pytest.raises(InputInvalid, match="together"):
        await plan_fleet(service.control, Options(isolation="row", names=(watched[0].name,)))

    assert await fleet_state(service.control) == FleetState(behind=2)


async def test_service_that_is_no_superuser_records_bytes(service, watched, make_delivery):
    deliveries = [make_delivery(tenant, body=b'{"id": "evt_1", "name": "\xff"}') for tenant in watched]

    recorded = [await record_all(service.control, deliveries) for _ in range(2)]

    assert recorded == [[True, True], [False, False]]
    for tenant, delivery in zip(watched, deliveries, strict=True):
        async with tenant_scope(service.control, tenant) as scoped:
            stored = await scoped.fetch("SELECT tenant_id, event_id, deliveries, payload, body FROM events")
        assert [tuple(row) for row in stored] == [(tenant.tenant_id, "evt_1", 2, "null", delivery.payload)]
    assert await service.control.fetchval("SELECT count(*) FROM control.pending_events") == 2


async def test_function_for_bytes_comes_and_goes_with_its_revision(service, watched, make_delivery):
    await take_back_control_plane(service.control)
    gone = await service.control.fetchval("SELECT to_regproc('control.record_body') IS NULL")
    recorded = await record_events(service.control, [make_delivery(watched[0])])

    await ensure_control_plane(service.control, isolation="row", upgrade=True)
    again = await record_all(service.control, [make_delivery(watched[0], body=b'{"id": "evt_2", "name": "\xff"}')])

    assert (gone, recorded, again) == (True, [True], [True])


async def test_a_revision_of_the_control_plane_may_replace_how_events_are_recorded(service, watched, add_revision, make_delivery):
    first = next((migrations.schema_root() / "control" / "versions").glob("0001_*.py"))
    before = migrations.head("control")
    replace = (
        f"import runpy; text = runpy.run_path({str(first)!r})['RECORD_EVENTS']",
        "op.execute(text.replace('CREATE', 'CREATE OR REPLACE', 1))",
    )
    add_revision("control", *replace, back="\n    ".join(replace))

    await ensure_control_plane(service.control, isolation="row", upgrade=True)
    recorded = await record_events(service.control, [make_delivery(tenant, "evt_1") for tenant in watched])
    back = await take_back_control_plane(service.control)

    assert recorded == [True, True]
    assert back == before
    assert await record_events(service.control, [make_delivery(tenant, "evt_2") for tenant in watched]) == [True, True]


async def test_the_control_plane_does_not_go_back_to_a_release_that_knows_no_row_isolation(service, release):
    while migrations.head("control") != "0004":
        revision = migrations.head("control")
        await take_back_control_plane(service.control)
        next((release.root / "control" / "versions").glob(f"{revision}_*.py")).unlink()
        revisions.forget()

    with pytest.raises(ControlPlaneStays, match="apart by row, which no earlier release knows"):
        await take_back_control_plane(service.control)

    await ensure_control_plane(service.control, isolation="row")


async def test_a_control_plane_revision_that_does_nothing_goes_forth_and_back(service, add_revision):
    before = migrations.head("control")
    add_revision("control", "pass", back="pass")

    await ensure_control_plane(service.control, isolation="row", upgrade=True)
    back = await take_back_control_plane(service.control)

    assert back == before


async def test_upgrade_takes_tables_from_analysts_of_an_earlier_release(service, watched, role, database):
    """An earlier release granted the tables to the analysts themselves, and had no reader."""
    shared = watched[0].schema_name
    made = await create_analyst(service.control, "one")
    await take_back_control_plane(service.control)
    admin = await asyncpg.connect(urlsplit(database)._replace(path=f"/{role[0]}").geturl())
    await admin.execute(
        f"DO $$ DECLARE name text; BEGIN FOR name IN SELECT tablename FROM pg_policies WHERE policyname = 'analyst' LOOP"
        f" EXECUTE format('ALTER POLICY analyst ON {shared}.%I TO {shared}_analysts', name); END LOOP; END $$;"
        f"DROP OWNED BY {shared}_reader CASCADE; DROP ROLE {shared}_reader;"
        f"GRANT USAGE ON SCHEMA {shared} TO {shared}_analysts; GRANT SELECT ON ALL TABLES IN SCHEMA {shared} TO {shared}_analysts"
    )
    session = await asyncpg.connect(analyst_dsn(role[1], made.role, made.password))
    before = await session.fetchval(f"SELECT name FROM {shared}.customers")

    await ensure_control_plane(service.control, isolation="row", upgrade=True)

    after = await session.fetchval("SELECT name FROM customers")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await session.fetch(f"SELECT name FROM {shared}.customers")
    await session.close()
    await admin.close()
    await revoke_analyst(service.control, made.role)
    assert (before, after) == ("one", "one")


async def test_a_database_that_came_to_a_server_without_its_roles_says_which(service, watched, connect):
    recorder = f"{watched[0].schema_name}_recorder"
    admin = await connect()
    await admin.execute(f"ALTER ROLE {recorder} RENAME TO {recorder}_away")

    with pytest.raises(RolesMissing, match=f": {recorder}$"):
        await ensure_control_plane(service.control, isolation="row")

    await admin.execute(f"ALTER ROLE {recorder}_away RENAME TO {recorder}")
    await ensure_control_plane(service.control, isolation="row")


async def test_a_service_that_may_not_make_roles_sets_nothing_up(role, database):
    admin = await asyncpg.connect(database)
    await admin.execute(f"ALTER ROLE {role[0]} NOCREATEROLE")
    await admin.close()
    connection = await open_connection(role[1], "tests service")

    with pytest.raises(RowIsolationNotPermitted, match="permission denied to create role"):
        await ensure_control_plane(ControlConnection(connection), isolation="row")

    assert not await connection.fetchval(INITIALISED)
    await connection.close()


async def test_partitions_by_tenant_hold_the_same_rows_behind_the_same_door(server, seal, make_delivery, now):
    admin = await asyncpg.connect(server.dsn)
    name = f"test_{uuid.uuid4().hex[:12]}"
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy")
    lane = Lane(server.dsn_for(name), "tests")
    async with control_plane(lane) as control:
        await ensure_control_plane(control, isolation="row", partitions=3)
        tenants = []
        for number in range(6):
            await provision(control, seal, f"tenant-{number}")
            tenants.append(await load_tenant(control, seal, f"tenant-{number}"))
        shared = tenants[0].schema_name
        bodies = [body.decode() for body in charge_event_payloads(20, seed=3, created=int(now.timestamp()), seconds=60)]
        deliveries = [make_delivery(tenant, body=body) for body in bodies for tenant in tenants]
        recorded = await record_events(control, deliveries), await record_events(control, deliveries)
        parts = await control.fetch(
            "SELECT c.relname, count(*), bool_and(p.relrowsecurity AND p.relforcerowsecurity) FROM pg_inherits AS i"
            " JOIN pg_class AS c ON c.oid = i.inhparent JOIN pg_class AS p ON p.oid = i.inhrelid"
            " WHERE c.relkind = 'p' AND c.relnamespace = $1::text::regnamespace GROUP BY c.relname",
            shared,
        )
    try:
        for tenant in tenants:
            await visit(lane, tenant, as_of=now)
            async with lane.scope(tenant) as scoped:
                assert await scoped.fetchval("SELECT count(*) FROM charges") == len(bodies)
                assert {row["deliveries"] for row in await scoped.fetch("SELECT deliveries FROM events")} == {2}
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with lane.scope(tenants[0]) as scoped:
                await scoped.fetch("SELECT count(*) FROM charges_0")
    finally:
        await lane.close()
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.execute("".join(f"DROP ROLE {shared}{suffix};" for suffix in ("", "_recorder", "_analysts", "_reader")))
        await admin.close()

    assert recorded == ([True] * len(deliveries), [False] * len(deliveries))
    assert {row["relname"]: (row["count"], row["bool_and"]) for row in parts} == dict.fromkeys(metadata.tables, (3, True))
