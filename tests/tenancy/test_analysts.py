from __future__ import annotations

import asyncio
import base64
import json
import os
import shlex
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import asyncpg
import pytest
from click.testing import CliRunner, Result

from billingwatch.cli.analysts import analysts as command
from billingwatch.errors import AnalystNotFound, AnalystRemains, AnalystsNotPermitted, TenantNotFound
from billingwatch.postgres import control_plane, migrations, tenant_plane
from billingwatch.postgres.connections import ControlConnection, open_connection
from billingwatch.tenancy.analysts import (
    ANALYST_TABLES,
    AnalystCreated,
    analyst_dsn,
    create_analyst,
    list_analysts,
    regrant,
    revoke_analyst,
    scram_verifier,
    secure_database,
    sql,
)
from billingwatch.tenancy.isolation import Isolation, analysts_schema
from billingwatch.tenancy.migrate import ensure_control_plane
from billingwatch.tenancy.provision import Provisioned, provision
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.sealing import Seal
from billingwatch.tenancy.tenants import Tenant

ProvisionTenant = Callable[..., Awaitable[tuple[Tenant, Provisioned]]]
CreateAnalyst = Callable[[str], Awaitable[AnalystCreated]]
ConnectAs = Callable[[AnalystCreated], Awaitable[asyncpg.Connection]]

NOT_WRITABLE = (asyncpg.ObjectNotInPrerequisiteStateError, asyncpg.WrongObjectTypeError)  # views, in row isolation
NEIGHBOUR = "globex-industries"


@pytest.fixture
async def admin(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser. Roles outlive the test's database, so those that it knows as analysts are dropped in the end."""
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE TEMPORARY TABLE made (role_name text)")
    yield connection
    roles = [row["role_name"] for row in await connection.fetch("SELECT role_name FROM made UNION SELECT role_name FROM control.analysts")]
    for role in roles:
        if await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
            await connection.execute(await connection.fetchval(sql["render_drop"], role))
    await connection.close()


@pytest.fixture
def create(control: ControlConnection, admin: asyncpg.Connection) -> CreateAnalyst:
    async def make(tenant: str) -> AnalystCreated:
        made = await create_analyst(control, tenant)
        await admin.execute("INSERT INTO made VALUES ($1)", made.role)
        return made

    return make


@pytest.fixture
async def connect_as(database: str) -> AsyncIterator[ConnectAs]:
    connections = []

    async def connect(analyst: AnalystCreated) -> asyncpg.Connection:
        connections.append(await asyncpg.connect(analyst_dsn(database, analyst.role, analyst.password)))
        return connections[-1]

    yield connect
    for connection in connections:
        connection.terminate()


@pytest.fixture
async def acme(provision_tenant: ProvisionTenant) -> Tenant:
    return (await provision_tenant("acme"))[0]


@pytest.fixture
async def globex(provision_tenant: ProvisionTenant) -> Tenant:
    return (await provision_tenant(NEIGHBOUR))[0]


@pytest.fixture
async def analyst(acme: Tenant, create: CreateAnalyst, connect_as: ConnectAs) -> asyncpg.Connection:
    """A session of an analyst of acme."""
    return await connect_as(await create("acme"))


async def add_customer(control: ControlConnection, tenant: Tenant, email: str) -> None:
    async with tenant_scope(control, tenant) as scoped:
        await scoped.execute(
            "INSERT INTO customers (customer_id, email, deleted, created_at, updated_at, event_id, version)"
            " VALUES ('cus_1', $1, false, now(), now(), 'evt_1', '1')",
            email,
        )


async def test_each_analyst_sees_its_own_rows_with_the_same_statement(
    control: ControlConnection, acme: Tenant, globex: Tenant, create: CreateAnalyst, connect_as: ConnectAs
) -> None:
    for tenant in (acme, globex):
        await add_customer(control, tenant, f"ada@{tenant.name}.example")
    first, second = await connect_as(await create(acme.name)), await connect_as(await create(globex.name))

    found = [await connection.fetchval("SELECT email FROM customers") for connection in (first, second)]

    assert found == ["ada@acme.example", f"ada@{NEIGHBOUR}.example"]


async def test_an_analyst_reads_the_tables_and_views_and_nothing_else(
    control: ControlConnection, acme: Tenant, analyst: asyncpg.Connection
) -> None:
    await control.execute(f"CREATE TABLE {acme.schema_name}.channels (token text)")
    await regrant(control, (await control.fetchrow(sql["tenant"], "acme"))["tenant_id"], acme.schema_name)

    for name in (*ANALYST_TABLES, *migrations.views()):
        await analyst.fetch(f"SELECT * FROM {name}")
    readable = await analyst.fetch(
        """
        SELECT c.oid::regclass::text AS name
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname !~ '^pg_|^information_schema$' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
          AND has_schema_privilege(n.oid, 'USAGE')
          AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, 'USAGE, SELECT, UPDATE')
              ELSE has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE, REFERENCES') END
        """
    )

    assert {row["name"] for row in readable} == {*ANALYST_TABLES, *migrations.views()}
    assert set(ANALYST_TABLES) <= set(tenant_plane.metadata.tables)


@pytest.mark.schema_isolation
async def test_neither_of_two_analysts_reads_the_others_schema(
    acme: Tenant, globex: Tenant, create: CreateAnalyst, connect_as: ConnectAs
) -> None:
    people = {acme.schema_name: await create(acme.name), globex.schema_name: await create(globex.name)}
    for other, own in ((acme.schema_name, globex.schema_name), (globex.schema_name, acme.schema_name)):
        connection = await connect_as(people[own])
        await connection.execute("SET default_transaction_read_only = off")
        for name in (*ANALYST_TABLES, *migrations.views()):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT * FROM {other}.{name}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"SET ROLE {people[other].role}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"SET SESSION AUTHORIZATION {people[other].role}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"GRANT {people[other].role} TO {people[own].role}")
        await connection.execute(f"SET search_path = {other}")
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.fetch("SELECT * FROM customers")


async def test_an_analyst_reads_neither_the_control_plane_nor_passwords_nor_files(acme: Tenant, analyst: asyncpg.Connection) -> None:
    forbidden = [
        *(f"SELECT * FROM {table}" for table in control_plane.metadata.tables),
        "SELECT * FROM control.alembic_version",
        "SELECT control.record_body(1,'','','','',true,'','',now(),now(),now(),'','')",
        "SELECT control.record_events('{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}')",
        "SELECT * FROM pg_authid",
        "SELECT passwd FROM pg_shadow",
        "SELECT * FROM pg_statistic",
        "SELECT * FROM pg_hba_file_rules",
        "SELECT pg_read_file('PG_VERSION')",
        "SELECT pg_ls_dir('.')",
        "COPY (SELECT 1) TO '/tmp/analyst'",
        "COPY customers TO PROGRAM 'cat'",
    ]

    for statement in forbidden:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await analyst.execute(statement)


async def test_an_analyst_writes_nothing_even_out_of_read_only_mode(analyst: asyncpg.Connection) -> None:
    forbidden = [
        "INSERT INTO customers (customer_id) VALUES ('cus_2')",
        "UPDATE charges SET amount = 0",
        "DELETE FROM events",
        "TRUNCATE anomalies",
        "MERGE INTO customers AS c USING charges AS d ON c.customer_id = d.customer_id WHEN MATCHED THEN DELETE",
        "SELECT * FROM charges FOR UPDATE",
        "DO 'BEGIN LOCK TABLE charges IN ROW EXCLUSIVE MODE; END'",
        "ALTER TABLE charges ADD COLUMN x int",
        "COMMENT ON TABLE charges IS 'mine'",
        "CREATE TABLE mine (x int)",
        "CREATE TABLE public.mine (x int)",
        "CREATE TEMPORARY TABLE mine (x int)",
        "CREATE VIEW mine AS SELECT 1",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA mine",
        "CREATE DATABASE mine",
        "CREATE ROLE mine",
        "CREATE TABLE control.mine (x int)",
        "SELECT lo_create(0)",
        "SELECT lo_creat(-1)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT pg_logical_emit_message(false, 'x', 'y')",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_advisory_xact_lock(1, 1)",
        "SELECT pg_try_advisory_lock_shared(1)",
        "SELECT pg_try_advisory_xact_lock(1)",
        "SET temp_file_limit = -1",
        "ALTER SYSTEM SET work_mem = '1GB'",
        "ALTER ROLE CURRENT_USER CONNECTION LIMIT -1",
    ]

    with pytest.raises((asyncpg.ReadOnlySQLTransactionError, *NOT_WRITABLE)):
        await analyst.execute("DELETE FROM events")
    await analyst.execute("SET default_transaction_read_only = off")

    for statement in forbidden:
        with pytest.raises((asyncpg.InsufficientPrivilegeError, *NOT_WRITABLE)):
            await analyst.execute(statement)


async def test_an_analyst_finds_the_names_of_other_tenants_nowhere(
    globex: Tenant, create: CreateAnalyst, analyst: asyncpg.Connection
) -> None:
    await create(NEIGHBOUR)
    catalogs = await analyst.fetch(
        """
        SELECT format('%I.%I', n.nspname, c.relname) AS name
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('pg_catalog', 'information_schema') AND c.relkind IN ('r', 'v') AND has_table_privilege(c.oid, 'SELECT')
        """
    )

    found, refused = [], []
    for catalog in catalogs:
        try:
            # The name is a parameter: in the text, pg_stat_activity would show it to the analyst who asks.
            if await analyst.fetchval(f"SELECT count(*) FROM {catalog['name']} AS x WHERE x::text ILIKE '%' || $1 || '%'", NEIGHBOUR):
                found.append(catalog["name"])
        except asyncpg.InsufficientPrivilegeError:
            refused.append(catalog["name"])

    assert found == []
    assert len(refused) < 10 < len(catalogs)


async def test_an_analyst_begins_in_its_schema_with_bounds(acme: Tenant, analyst: asyncpg.Connection) -> None:
    settings = (
        "search_path",
        "default_transaction_read_only",
        "statement_timeout",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "TimeZone",
        "temp_file_limit",
    )

    values = [await analyst.fetchval("SELECT current_setting($1)", name) for name in settings]

    assert values == [analysts_schema(acme.schema_name), "on", "30s", "1min", "8h", "UTC", "1GB"]


async def test_an_analyst_has_a_handful_of_connections(acme: Tenant, create: CreateAnalyst, connect_as: ConnectAs) -> None:
    made = await create("acme")
    for _ in range(5):
        await connect_as(made)

    with pytest.raises(asyncpg.TooManyConnectionsError):
        await connect_as(made)


async def test_the_password_never_travels_when_an_analyst_is_made(
    control: ControlConnection, acme: Tenant, admin: asyncpg.Connection, create: CreateAnalyst, database: str
) -> None:
    sent: list[str] = []
    control.add_query_logger(lambda query: sent.append(f"{query.query} {query.args}"))

    made = await create("acme")

    stored = await admin.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = $1", made.role)
    salt = base64.b64decode(stored.split(":")[1].split("$")[0])
    assert stored == scram_verifier(made.password, salt)
    assert any(made.role in query for query in sent)
    assert not any(made.password in query for query in sent)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(analyst_dsn(database, made.role, made.password[:-1]))


def test_the_verifier_is_that_of_rfc_7677() -> None:
    verifier = scram_verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))

    assert verifier == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


async def test_a_revoked_analyst_is_out_at_once_and_for_good(
    control: ControlConnection, acme: Tenant, admin: asyncpg.Connection, create: CreateAnalyst, connect_as: ConnectAs
) -> None:
    gone, stays = await create("acme"), await create("acme")
    session, other = await connect_as(gone), await connect_as(stays)

    await revoke_analyst(control, gone.role)

    with pytest.raises((asyncpg.AdminShutdownError, asyncpg.InterfaceError, ConnectionError)):
        await session.fetch("SELECT 1")
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await connect_as(gone)
    assert await other.fetch("SELECT * FROM revenue_daily") == []
    assert [row.role for row in await list_analysts(control)] == [stays.role]
    assert not await admin.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", gone.role)
    with pytest.raises(AnalystNotFound):
        await revoke_analyst(control, gone.role)


@pytest.fixture
async def other_database(admin: asyncpg.Connection) -> AsyncIterator[str]:
    """Name of another database on the server, into which everybody is let."""
    name = f"other_{uuid.uuid4().hex[:12]}"
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    yield name
    await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def test_an_analyst_who_owns_something_elsewhere_is_out_and_dropped_later(
    control: ControlConnection, acme: Tenant, admin: asyncpg.Connection, create: CreateAnalyst, database: str, other_database: str
) -> None:
    made = await create("acme")
    dsn = analyst_dsn(database, made.role, made.password)
    elsewhere = await asyncpg.connect(urlsplit(dsn)._replace(path=f"/{other_database}").geturl())
    await elsewhere.execute("SET default_transaction_read_only = off")
    await elsewhere.execute("SELECT lo_create(0)")
    await elsewhere.close()

    with pytest.raises(AnalystRemains, match=other_database):
        await revoke_analyst(control, made.role)
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await asyncpg.connect(dsn)
    await admin.execute(f"DROP DATABASE {other_database}")
    await revoke_analyst(control, made.role)

    assert await list_analysts(control) == []


async def test_a_role_that_is_no_analyst_cannot_be_revoked(control: ControlConnection, acme: Tenant) -> None:
    with pytest.raises(AnalystNotFound):
        await revoke_analyst(control, await control.fetchval("SELECT current_user"))


async def test_a_role_that_was_dropped_by_hand_hinders_nobody(
    control: ControlConnection, acme: Tenant, admin: asyncpg.Connection, create: CreateAnalyst
) -> None:
    made = await create("acme")
    await admin.execute(await admin.fetchval(sql["render_drop"], made.role))

    await create("acme")
    await revoke_analyst(control, made.role)

    assert made.role not in [row.role for row in await list_analysts(control, "acme")]


async def test_analysts_are_listed_with_their_tenant_and_sessions(
    control: ControlConnection, acme: Tenant, globex: Tenant, create: CreateAnalyst, connect_as: ConnectAs
) -> None:
    first, second = await create("acme"), await create(NEIGHBOUR)
    await connect_as(second)

    everybody, of_acme = await list_analysts(control), await list_analysts(control, "acme")

    assert [(row.tenant, row.schema_name, row.role, row.sessions) for row in everybody] == [
        ("acme", analysts_schema(acme.schema_name), first.role, 0),
        (NEIGHBOUR, analysts_schema(globex.schema_name), second.role, 1),
    ]
    assert [row.role for row in of_acme] == [first.role]
    with pytest.raises(TenantNotFound):
        await list_analysts(control, "nobody")


async def test_there_is_no_analyst_of_an_unknown_tenant(control: ControlConnection) -> None:
    with pytest.raises(TenantNotFound):
        await create_analyst(control, "nobody")


@pytest.mark.schema_isolation
async def test_views_that_were_made_anew_are_granted_again(control: ControlConnection, acme: Tenant, analyst: asyncpg.Connection) -> None:
    async with control.transaction():
        await control.execute(f"SET LOCAL search_path = {acme.schema_name};\n{migrations.render_drop_views()}\n{migrations.render_views()}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await analyst.fetch("SELECT * FROM revenue_daily")

    await regrant(control, acme.tenant_id, acme.schema_name)

    assert await analyst.fetch("SELECT * FROM revenue_daily") == []


async def test_a_schema_that_is_behind_lends_what_it_has(
    control: ControlConnection, acme: Tenant, create: CreateAnalyst, connect_as: ConnectAs
) -> None:
    await control.execute(f"DROP VIEW {acme.schema_name}.revenue_daily")

    session = await connect_as(await create("acme"))

    assert await session.fetch("SELECT * FROM charges_hourly") == []


async def test_two_analysts_can_be_made_at_once(database: str, control: ControlConnection, acme: Tenant, admin: asyncpg.Connection) -> None:
    other = ControlConnection(await open_connection(database, "tests control"))

    made = await asyncio.gather(create_analyst(control, "acme"), create_analyst(other, "acme"))

    assert {row.role for row in await list_analysts(control)} == {one.role for one in made}
    await other.close()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE RULE r AS ON INSERT TO {table} DO INSTEAD NOTHING",
        "CREATE TRIGGER t BEFORE INSERT ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "COMMENT ON TABLE {table} IS 'mine'",
    ],
)
async def test_ddl_of_an_analyst_is_refused_without_waiting_for_a_lock(
    control: ControlConnection, acme: Tenant, analyst: asyncpg.Connection, create: CreateAnalyst, connect_as: ConnectAs, statement: str
) -> None:
    reader = await connect_as(await create("acme"))
    await reader.execute("BEGIN; SELECT FROM events")
    await analyst.execute("SET default_transaction_read_only = off; SET statement_timeout = 0")

    async with asyncio.timeout(5):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="an analyst may only read"):
            await analyst.execute(statement.format(table="events"))

    await add_customer(control, acme, "ada@acme.example")
    assert await reader.fetchval("SELECT count(*) FROM customers") == 1


async def test_the_database_is_secured_once(control: ControlConnection, acme: Tenant, create: CreateAnalyst) -> None:
    made = await create("acme")

    assert made.open_doors == ()
    assert await control.fetch(sql["open_doors"]) == []


class Service:
    """A service whose role is no superuser, as on a server that somebody else runs."""

    def __init__(self, control: ControlConnection, dsn: str, role: str, superuser: asyncpg.Connection) -> None:
        self.control = control
        self.dsn = dsn
        self.role = role
        self.superuser = superuser

    async def connect_as(self, analyst: AnalystCreated) -> asyncpg.Connection:
        return await asyncpg.connect(analyst_dsn(self.dsn, analyst.role, analyst.password))


@pytest.fixture
async def service(admin: asyncpg.Connection, database: str, isolation: Isolation, seal: Seal) -> AsyncIterator[Service]:
    """In a database that belongs to another role; this one may create roles and schemas, no more."""
    name = f"service_{uuid.uuid4().hex[:12]}"
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    await admin.execute(f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD '{scram_verifier(name, os.urandom(16))}'")
    await admin.execute(f"GRANT CREATE ON DATABASE {name} TO {name}")
    parts = urlsplit(database)
    superuser = await asyncpg.connect(parts._replace(path=f"/{name}").geturl())
    dsn = analyst_dsn(parts._replace(path=f"/{name}").geturl(), name, name)
    control = ControlConnection(await open_connection(dsn, "tests service"))
    await ensure_control_plane(control, isolation=isolation)
    await provision(control, seal, "acme")
    yield Service(control, dsn, name, superuser)
    await control.close()
    leftovers = [row["role_name"] for row in await superuser.fetch("SELECT role_name FROM control.analysts")]
    leftovers += [
        row["rolname"]
        for row in await superuser.fetch("SELECT rolname FROM pg_roles, control.isolation WHERE starts_with(rolname, schema_name)")
    ]
    await superuser.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    for role in (*leftovers, name):
        await admin.execute(f"DROP ROLE IF EXISTS {role}")


async def test_a_service_that_is_no_superuser_manages_analysts_and_tells_what_it_cannot_close(service: Service) -> None:
    made = await create_analyst(service.control, "acme")
    session = await service.connect_as(made)
    readable = await session.fetch("SELECT * FROM revenue_daily")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await session.fetch("SELECT * FROM control.tenants")
    sessions = [row.sessions for row in await list_analysts(service.control)]
    await revoke_analyst(service.control, made.role)

    assert readable == []
    assert sessions == [1]
    assert [door.deed.split()[0] for door in made.open_doors] == ["connect", "use", "take", "stop"]
    assert await list_analysts(service.control) == []
    with pytest.raises((asyncpg.AdminShutdownError, asyncpg.InterfaceError, ConnectionError)):
        await session.fetch("SELECT 1")
    assert not await service.superuser.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", made.role)


async def test_a_superuser_closes_the_rest_with_the_sql_that_was_told(service: Service) -> None:
    doors = await secure_database(service.control)

    for door in doors:
        await service.superuser.execute(door.remedy)

    # Now the service lends CONNECT only if it was given the right to.
    await service.superuser.execute(f"GRANT CONNECT ON DATABASE {service.role} TO {service.role} WITH GRANT OPTION")
    made = await create_analyst(service.control, "acme")
    session = await service.connect_as(made)
    await session.execute("SET default_transaction_read_only = off")
    assert made.open_doors == ()
    for statement in ("SELECT pg_advisory_lock(1)", "SELECT lo_create(0)", "CREATE TEMPORARY TABLE mine (x int)"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await session.execute(statement)
        await service.control.execute(statement)
    await session.close()


async def test_the_owner_of_the_database_closes_all_but_functions(service: Service) -> None:
    await service.superuser.execute(f"ALTER DATABASE {service.role} OWNER TO {service.role}")

    made = await create_analyst(service.control, "acme")

    assert [door.deed.split()[0] for door in made.open_doors] == ["take", "stop"]
    await (await service.connect_as(made)).close()


async def test_a_service_that_may_not_make_roles_leaves_nothing_behind(service: Service) -> None:
    await service.superuser.execute(f"ALTER ROLE {service.role} NOCREATEROLE; ALTER DATABASE {service.role} OWNER TO {service.role}")

    with pytest.raises(AnalystsNotPermitted):
        await create_analyst(service.control, "acme")

    assert await list_analysts(service.control) == []
    assert len(await service.control.fetch(sql["open_doors"])) == 4


async def test_an_analyst_who_could_not_connect_is_not_left_behind(service: Service) -> None:
    schema = await service.control.fetchval("SELECT schema_name FROM control.tenants")
    await service.superuser.execute(f"GRANT CONNECT ON DATABASE {service.role} TO {service.role}")
    await service.superuser.execute(f"REVOKE CONNECT ON DATABASE {service.role} FROM PUBLIC")

    with pytest.raises(AnalystsNotPermitted, match="CONNECT"):
        await create_analyst(service.control, "acme")

    assert await list_analysts(service.control) == []
    assert await service.superuser.fetch("SELECT FROM pg_db_role_setting WHERE $1 = ANY (setconfig)", f"search_path={schema}") == []


@pytest.mark.parametrize(
    ("service_dsn", "expected"),
    [
        ("postgresql://svc:pw@127.0.0.1:5433/billing", "postgresql://analyst_x:s3cret@127.0.0.1:5433/billing"),
        ("postgres://svc@db.example/billing?sslmode=verify-full", "postgresql://analyst_x:s3cret@db.example/billing?sslmode=verify-full"),
        (
            "postgresql://svc:pw@h1:1,h2:2/b?target_session_attrs=read-write",
            "postgresql://analyst_x:s3cret@h1:1,h2:2/b?target_session_attrs=read-write",
        ),
        ("postgresql://svc:p%40w@[::1]:5432/b%20c", "postgresql://analyst_x:s3cret@[::1]:5432/b%20c"),
        ("postgresql:///b?host=/run/postgresql&user=svc&password=pw", "postgresql://analyst_x:s3cret@/b?host=%2Frun%2Fpostgresql"),
        ("postgresql://db/b?sslcert=c&sslkey=k&sslrootcert=/ca.pem", "postgresql://analyst_x:s3cret@db/b?sslrootcert=%2Fca.pem"),
        ("postgresql://svc:pw@db?dbname=b", "postgresql://analyst_x:s3cret@db/b"),
        ("postgresql://svc:pw@db", "postgresql://analyst_x:s3cret@db/svc"),
    ],
)
def test_an_analysts_dsn_is_the_services_with_another_name_and_password(service_dsn: str, expected: str) -> None:
    assert analyst_dsn(service_dsn, "analyst_x", "s3cret") == expected


@pytest.fixture
def invoke(database: str, isolation: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[Result]]:
    for name in [name for name in os.environ if name.startswith("BILLINGWATCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BILLINGWATCH_DATABASE_URL", database)
    monkeypatch.setenv("BILLINGWATCH_ISOLATION", isolation)

    async def run(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, command, arguments, catch_exceptions=False)

    return run


async def test_the_command_line_makes_lists_rotates_and_revokes_an_analyst(
    invoke: Callable[..., Awaitable[Result]], acme: Tenant, admin: asyncpg.Connection
) -> None:
    made = json.loads((await invoke("create", "acme", "--json")).stdout)
    session = await asyncpg.connect(made["dsn"])
    email = await session.fetch("SELECT email FROM customers")
    await session.close()
    listed = json.loads((await invoke("list", "--json")).stdout)
    rotated = json.loads((await invoke("rotate", made["role"], "--json")).stdout)
    again = await asyncpg.connect(rotated["dsn"])
    await again.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(made["dsn"])
    revoked = await invoke("revoke", made["role"])
    left = json.loads((await invoke("list", "acme", "--json")).stdout)

    assert list(made) == ["tenant", "schema", "role", "password", "dsn"]
    assert (made["tenant"], made["schema"], email) == ("acme", analysts_schema(acme.schema_name), [])
    assert [(row["role"], row["tenant"], row["schema"]) for row in listed] == [(made["role"], "acme", analysts_schema(acme.schema_name))]
    assert {key for key in made if made[key] != rotated[key]} == {"password", "dsn"}
    assert made["role"] in revoked.stderr
    assert left == []


async def test_the_command_line_shows_a_line_for_psql_and_says_to_keep_the_password(
    invoke: Callable[..., Awaitable[Result]], acme: Tenant, admin: asyncpg.Connection
) -> None:
    shown = await invoke("create", "acme")
    listed = await invoke("list")

    facts = dict(line.split(None, 1) for line in shown.stdout.splitlines())
    program, dsn = shlex.split(facts["psql"])
    assert program.endswith("psql")
    assert dsn == facts["DSN"]
    assert "keep it now" in shown.stderr
    assert facts["role"] in listed.stdout
    assert facts["password"] not in listed.stdout
