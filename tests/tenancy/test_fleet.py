"""Migrating the fleet: each tenant once, all or nothing, and one that fails holds up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from billingwatch.errors import ControlPlaneStays, InputInvalid, MigrationRunning, TenantNotFound
from billingwatch.postgres import migrations, revisions
from billingwatch.postgres.connections import ControlConnection
from billingwatch.tenancy import fleet, tenant_migration
from billingwatch.tenancy.analysts import create_analyst
from billingwatch.tenancy.fleet import Migrated, Outcome, migrate_fleet
from billingwatch.tenancy.fleet_plan import Options, plan_fleet
from billingwatch.tenancy.migrate import FleetState, fleet_state, take_back_control_plane
from billingwatch.tenancy.scope import tenant_scope

pytestmark = pytest.mark.schema_isolation  # what migrates the schema of all tenants is in test_row_isolation.py

BEFORE = migrations.head("tenant")  # what the revisions that a test adds come after
ADD = "ALTER TABLE customers ADD COLUMN nickname text"
DROP = "ALTER TABLE customers DROP COLUMN nickname"
RUNNING = """SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1112099156
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""

Migrate = Callable[..., Awaitable[Outcome]]


@pytest.fixture
def migrate(control: ControlConnection, database: str) -> Migrate:
    async def run(**options: object) -> Outcome:
        return await migrate_fleet(control, database, Options(**options))

    return run


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks are waited for as often as ever, and hardly any time."""
    monkeypatch.setattr(tenant_migration, "BRIEF_LOCKS", "SET LOCAL lock_timeout = '20ms';")
    monkeypatch.setattr(fleet, "WAIT_MOST", 0.01)


@pytest.fixture
def held_up(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set once a run has had to wait for a lock in vain; it tries again soon after."""
    event = asyncio.Event()

    async def pause(_: int) -> None:
        event.set()
        await asyncio.sleep(0.1)

    monkeypatch.setattr(tenant_migration, "BRIEF_LOCKS", "SET LOCAL lock_timeout = '20ms';")
    monkeypatch.setattr(fleet, "_pause", pause)
    return event


@pytest.fixture
async def trio(provision_tenant):
    """Three tenants."""
    return {name: (await provision_tenant(name))[0] for name in ("first", "second", "third")}


async def columns(control: ControlConnection, schema_name: str, table: str) -> list[str]:
    rows = await control.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2 ORDER BY ordinal_position",
        schema_name,
        table,
    )
    return [row["column_name"] for row in rows]


async def revisions_of(control: ControlConnection) -> dict[str, str]:
    return dict(await control.fetch("SELECT name, revision FROM control.tenants"))


async def catalog(control: ControlConnection, schema_name: str) -> set[tuple[object, ...]]:
    """Columns, indexes, constraints, views and functions with their texts, comments and grants of a schema."""
    queries = (
        """SELECT c.relname, c.relkind::text, c.relacl::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                  col_description(c.oid, a.attnum)
           FROM pg_class AS c
           JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           WHERE c.relnamespace = $1::text::regnamespace""",
        "SELECT viewname, definition FROM pg_views WHERE schemaname = $1",
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = $1::text::regnamespace AND contype <> 'n'",
        "SELECT proname, pg_get_functiondef(oid), proacl::text FROM pg_proc WHERE pronamespace = $1::text::regnamespace",
    )
    return {tuple(row) for query in queries for row in await control.fetch(query, schema_name)}


def done(name: str, revision: str, **more: object) -> Migrated:
    return Migrated(name=name, from_revision=BEFORE, to_revision=revision, error=None, **more)


async def test_a_run_with_nothing_to_do_asks_one_query_and_takes_no_lock(control, migrate, trio):
    asked: list[str] = []
    with control.query_logger(lambda record: asked.append(record.query)):
        outcome = await migrate()
        await asyncio.sleep(0)  # the logger is called a little later

    assert (outcome.total, outcome.results) == (0, [])
    assert len(asked) == 1
    assert await control.fetchval(RUNNING) == 0
    assert await fleet_state(control) == FleetState()


async def test_a_tenant_that_is_behind_comes_to_head_and_keeps_its_rows(control, release, provision_tenant, connect, migrate):
    tenant, _ = await provision_tenant()
    connection = await connect()
    async with tenant_scope(connection, tenant) as scoped:
        await scoped.execute(
            "INSERT INTO customers (customer_id, deleted, created_at, updated_at, event_id, version)"
            " VALUES ('cus_1', false, now(), now(), 'evt_1', '1')"
        )
    revision = release.add("tenant", ADD)
    release.add_view("customers_known", "CREATE VIEW customers_known AS SELECT customer_id, nickname FROM customers;")

    behind = await fleet_state(control)
    outcome = await migrate()

    assert behind == FleetState(behind=1)
    assert outcome.results == [done("acme", revision)]
    async with tenant_scope(connection, tenant) as scoped:
        assert [tuple(row) for row in await scoped.fetch("SELECT customer_id, nickname FROM customers_known")] == [("cus_1", None)]
    assert await revisions_of(control) == {"acme": revision}
    assert await fleet_state(control) == FleetState()
    assert (await migrate()).results == []


async def test_the_control_plane_comes_first(control, release, trio, migrate):
    revision = release.add("control", "ALTER TABLE control.tenants ADD COLUMN plan text")
    release.add("tenant", ADD)

    outcome = await migrate()

    assert (outcome.control_from, outcome.control_to) == (f"{int(revision) - 1:04d}", revision)
    assert await control.fetchval("SELECT version_num FROM control.alembic_version") == revision
    assert len(outcome.results) == 3


async def test_a_control_plane_in_use_is_asked_again(control, connect, release, migrate, monkeypatch):
    monkeypatch.setattr(fleet, "WAIT_MOST", 0.2)
    revision = release.add("control", "ALTER TABLE control.tenants ADD COLUMN plan text")
    holder = await connect()
    held = holder.transaction()
    await held.start()
    await holder.fetch("SELECT FROM control.tenants")

    run = asyncio.create_task(migrate())
    await asyncio.sleep(0.8)
    await held.rollback()
    await run

    assert await control.fetchval("SELECT version_num FROM control.alembic_version") == revision


async def test_a_tenant_several_revisions_behind_takes_them_all(control, release, tenant, migrate):
    release.add("tenant", ADD)
    release.add("tenant", "ALTER TABLE customers RENAME COLUMN nickname TO alias")

    await migrate()

    assert (await columns(control, tenant.schema_name, "customers"))[-1] == "alias"


async def test_views_that_changed_are_replaced_although_no_revision_did(control, release, tenant, migrate):
    release.add_view("customers_known", "CREATE VIEW customers_known AS SELECT customer_id FROM customers;")
    await migrate()
    release.add_view("customers_known", "CREATE VIEW customers_known AS SELECT email, customer_id FROM customers;")

    outcome = await migrate()

    assert outcome.failed == []
    assert await columns(control, tenant.schema_name, "customers_known") == ["email", "customer_id"]


async def test_views_stay_as_they_are_when_neither_they_nor_their_columns_change(control, release, tenant, migrate):
    release.add("tenant", ADD)
    views = "SELECT relname, oid FROM pg_class WHERE relkind = 'v' AND relnamespace = $1::text::regnamespace"
    before = await control.fetch(views, tenant.schema_name)

    await migrate()

    assert len(before) == len(migrations.views())
    assert await control.fetch(views, tenant.schema_name) == before


async def test_a_column_that_a_view_reads_may_change(control, release, trio, migrate):
    release.add("tenant", "ALTER TABLE charges ALTER COLUMN currency TYPE varchar(3)")
    release.add("tenant", ADD)

    outcome = await migrate()

    assert outcome.failed == []
    for tenant in trio.values():
        assert set(migrations.views()) <= {
            row["viewname"] for row in await control.fetch("SELECT viewname FROM pg_views WHERE schemaname = $1", tenant.schema_name)
        }


@pytest.mark.parametrize("sql", [ADD, "ALTER TABLE charges ALTER COLUMN currency TYPE varchar(3)"])
async def test_analysts_keep_what_they_may_read(control, release, provision_tenant, migrate, connect, sql):
    tenant, _ = await provision_tenant()
    role = (await create_analyst(control, "acme")).role
    release.add("tenant", sql)

    outcome = await migrate()

    assert outcome.failed == []
    analyst = await connect()
    await analyst.execute(f"SET ROLE {role}; SET search_path = {tenant.schema_name}")
    for name in ("charges", *migrations.views()):
        assert await analyst.fetch(f"SELECT * FROM {name}") == []


async def test_a_new_tenant_is_provisioned_at_the_new_head(control, release, provision_tenant, migrate):
    revision = release.add("tenant", ADD)

    tenant, _ = await provision_tenant()

    assert "nickname" in await columns(control, tenant.schema_name, "customers")
    assert await revisions_of(control) == {"acme": revision}
    assert (await migrate()).total == 0


async def test_a_tenant_that_fails_is_reported_and_left_whole_and_the_others_go_on(control, release, trio, migrate):
    await control.execute(f"ALTER TABLE {trio['second'].schema_name}.charges ADD COLUMN nickname text")
    revision = release.add("tenant", f"{ADD}; ALTER TABLE charges ADD COLUMN nickname text")

    outcome = await migrate()

    assert [(result.name, result.attempts) for result in outcome.failed] == [("second", 1)]
    assert 'column "nickname" of relation "charges" already exists' in (outcome.failed[0].error or "")
    assert "nickname" not in await columns(control, trio["second"].schema_name, "customers")
    assert await revisions_of(control) == {"first": revision, "second": BEFORE, "third": revision}
    [failure] = await control.fetch("SELECT * FROM control.migration_failures")
    assert (failure["tenant_id"], failure["wanted"]) == (trio["second"].tenant_id, revision)
    assert failure["error"] == outcome.failed[0].error


async def test_a_tenant_that_failed_is_tried_again_after_the_others_and_forgiven(control, release, trio, migrate):
    await control.execute(f"ALTER TABLE {trio['second'].schema_name}.customers ADD COLUMN nickname text")
    release.add("tenant", ADD)
    await migrate()
    release.add("tenant", "ALTER TABLE customers ADD COLUMN alias text")
    await control.execute(f"ALTER TABLE {trio['second'].schema_name}.customers DROP COLUMN nickname")

    plan = await plan_fleet(control, Options())
    outcome = await migrate(jobs=1)

    assert {planned.name: planned.error is None for planned in plan.tenants} == {"first": True, "second": False, "third": True}
    assert [result.name for result in outcome.results] == ["first", "third", "second"]
    assert outcome.failed == []
    assert await control.fetchval("SELECT count(*) FROM control.migration_failures") == 0


async def test_a_failing_canary_stops_the_run(control, release, trio, migrate):
    await control.execute(f"ALTER TABLE {trio['second'].schema_name}.customers ADD COLUMN nickname text")
    revision = release.add("tenant", ADD)

    outcome = await migrate(canary=2)

    assert (outcome.stopped_by, outcome.total) == ("canary", 3)
    assert [result.name for result in outcome.results] == ["first", "second"]
    assert await revisions_of(control) == {"first": revision, "second": BEFORE, "third": BEFORE}


async def test_a_run_stops_at_the_failures_that_it_may_have(control, release, trio, migrate):
    release.add("tenant", "SELECT 1 / 0")

    outcome = await migrate(jobs=1, canary=0, max_failures=2)

    assert (outcome.stopped_by, len(outcome.failed), outcome.total) == ("max_failures", 2, 3)
    assert set((await revisions_of(control)).values()) == {BEFORE}


async def test_only_the_tenants_that_are_named_are_migrated(control, release, trio, migrate):
    revision = release.add("tenant", ADD)

    await migrate(names=("third", "first"))
    with pytest.raises(TenantNotFound):
        await migrate(names=("second", "nobody"))

    assert await revisions_of(control) == {"first": revision, "second": BEFORE, "third": revision}
    assert (await migrate()).total == 1


async def test_a_dry_run_tells_what_would_happen_and_changes_nothing(control, release, trio, migrate):
    control_revision = release.add("control", "ALTER TABLE control.tenants ADD COLUMN plan text")
    revision = release.add("tenant", ADD)
    before = await catalog(control, trio["first"].schema_name), await revisions_of(control)

    plan = await plan_fleet(control, Options())

    assert (plan.control_from, plan.control_to) == (f"{int(control_revision) - 1:04d}", control_revision)
    assert [(planned.name, planned.from_revision, planned.to_revision) for planned in plan.tenants] == [
        (name, BEFORE, revision) for name in trio
    ]
    assert (await catalog(control, trio["first"].schema_name), await revisions_of(control)) == before
    assert "plan" not in await columns(control, "control", "tenants")
    assert await control.fetchval(RUNNING) == 0


async def test_a_tenant_at_a_revision_of_a_newer_release_is_reported_and_left_alone(control, release, provision_tenant, migrate):
    await provision_tenant("older")
    await provision_tenant("newer")
    await control.execute("UPDATE control.tenants SET revision = '9999' WHERE name = 'newer'")
    release.add("tenant", ADD)

    state = await fleet_state(control)
    outcome = await migrate()

    assert state == FleetState(behind=1, newer=1)
    assert [result.name for result in outcome.failed] == ["newer"]
    assert "9999, which this release does not know" in (outcome.failed[0].error or "")
    assert (await revisions_of(control))["newer"] == "9999"


async def test_a_tenant_whose_tables_are_in_use_is_tried_again_and_then_reported(control, release, connect, trio, migrate, impatient):
    revision = release.add("tenant", ADD)

    async with tenant_scope(await connect(), trio["second"]) as scoped:
        await scoped.fetch("SELECT customer_id FROM customers")
        outcome = await migrate()
    again = await migrate()

    assert [(result.name, result.attempts) for result in outcome.failed] == [("second", fleet.ATTEMPTS)]
    assert "in use" in (outcome.failed[0].error or "")
    assert [result.name for result in outcome.results] == ["first", "third", "second"]
    assert again.results == [done("second", revision)]


async def test_an_autovacuum_gives_way_before_the_migration_does(control, release, trio, migrate):
    """PostgreSQL cancels an autovacuum once somebody has waited for deadlock_timeout: what a migration cannot outwait holds it up for ever."""
    release.add(
        "tenant",
        """
        CREATE TABLE waits AS
        SELECT name, setting::int AS ms FROM pg_settings WHERE name IN ('deadlock_timeout', 'lock_timeout')
        """,
    )

    await migrate()

    waits = dict(await control.fetch(f"SELECT name, ms FROM {trio['first'].schema_name}.waits"))
    assert 0 < waits["deadlock_timeout"] < waits["lock_timeout"]


async def test_a_tenant_whose_tables_are_free_in_time_is_migrated(release, connect, trio, migrate, held_up):
    release.add("tenant", ADD)
    async with tenant_scope(await connect(), trio["second"]) as scoped:
        await scoped.fetch("SELECT customer_id FROM customers")
        run = asyncio.create_task(migrate())
        await asyncio.wait_for(held_up.wait(), 30)

    outcome = await run

    assert outcome.failed == []
    assert outcome.results[-1].name == "second"
    assert outcome.results[-1].attempts > 1


async def test_a_second_run_is_refused_while_one_is_at_work(control, database, release, connect, trio, migrate, impatient, monkeypatch):
    monkeypatch.setattr(fleet, "WAIT_MOST", 0.2)
    release.add("tenant", ADD)
    other = ControlConnection(await connect())
    async with tenant_scope(await connect(), trio["second"]) as scoped:
        await scoped.fetch("SELECT customer_id FROM customers")
        run = asyncio.create_task(migrate())
        while not await other.fetchval(RUNNING):
            await asyncio.sleep(0.005)

        with pytest.raises(MigrationRunning):
            await migrate_fleet(other, database, Options())
        with pytest.raises(MigrationRunning):
            await take_back_control_plane(other)

    assert (await run).failed == []
    assert (await migrate_fleet(other, database, Options())).total == 0


async def test_a_tenant_that_somebody_else_migrated_meanwhile_is_not_migrated_twice(control, release, tenant, connect):
    revision = release.add("tenant", ADD)
    await control.execute("UPDATE control.tenants SET revision = $1", revision)
    behind = tenant_migration.Behind(
        tenant_id=tenant.tenant_id,
        name="acme",
        schema_name=tenant.schema_name,
        revision=BEFORE,
        views_digest=migrations.views_digest(),
    )

    with pytest.raises(tenant_migration.Overtaken):
        await tenant_migration.Mover("").move(await connect(), behind)

    assert "nickname" not in await columns(control, tenant.schema_name, "customers")


async def test_a_connection_that_migrated_keeps_neither_path_nor_time_limit(control, release, tenant, connect):
    release.add("tenant", ADD)
    connection = await connect()
    behind = tenant_migration.Behind(
        tenant_id=tenant.tenant_id,
        name="acme",
        schema_name=tenant.schema_name,
        revision=BEFORE,
        views_digest=migrations.views_digest(),
    )

    await tenant_migration.Mover("").move(connection, behind)

    assert await connection.fetchval("SHOW lock_timeout") == "0"
    assert await connection.fetchval("SHOW search_path") == "pg_catalog"
    assert await connection.fetchval("SHOW synchronous_commit") == await control.fetchval("SHOW synchronous_commit")


ONLINE_UP = """with op.get_context().autocommit_block():
        op.drop_index("customers_email_idx", if_exists=True, postgresql_concurrently=True)
        op.create_index("customers_email_idx", "customers", ["email"], postgresql_concurrently=True)
    names = [row.customer_id for row in op.get_bind().execute(sa.text("SELECT customer_id FROM customers"))]
    op.get_bind().execute(sa.text("UPDATE customers SET name = :names"), {"names": ",".join(names)})"""
ONLINE_BACK = """with op.get_context().autocommit_block():
        op.drop_index("customers_email_idx", postgresql_concurrently=True)"""
ONLINE = """import sqlalchemy as sa

online = True


def upgrade_empty() -> None:
    op.create_index("customers_email_idx", "customers", ["email"])
"""


async def test_an_online_revision_runs_through_alembic_between_those_that_are_rendered(control, release, trio, connect, migrate):
    tenant = trio["second"]
    async with tenant_scope(await connect(), tenant) as scoped:
        await scoped.execute(
            "INSERT INTO customers (customer_id, deleted, created_at, updated_at, event_id, version)"
            " VALUES ('cus_1', false, now(), now(), 'evt_1', '1')"
        )
    release.add("tenant", ADD, back=DROP)
    release.write("tenant", ONLINE_UP, ONLINE_BACK, declarations=ONLINE)
    revision = release.add("tenant", "ALTER TABLE customers RENAME COLUMN nickname TO alias")

    plan = await plan_fleet(control, Options())
    outcome = await migrate()

    assert [planned.online for planned in plan.tenants] == [True] * 3
    assert outcome.failed == []
    assert set((await revisions_of(control)).values()) == {revision}
    for each in trio.values():
        index = await control.fetchrow(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)", f"{each.schema_name}.customers_email_idx"
        )
        assert index["indisvalid"]
        assert (await columns(control, each.schema_name, "customers"))[-1] == "alias"
    assert await control.fetchval(f"SELECT name FROM {tenant.schema_name}.customers") == "cus_1"


async def test_a_tenant_that_has_to_wait_between_its_steps_goes_on_where_it_was(control, release, connect, trio, migrate, held_up):
    release.add("tenant", ADD)
    release.write("tenant", ONLINE_UP, ONLINE_BACK, declarations=ONLINE)
    revision = release.add("tenant", "ALTER TABLE charges ADD COLUMN note text")
    onlooker = ControlConnection(await connect())
    async with tenant_scope(await connect(), trio["second"]) as scoped:
        await scoped.execute("LOCK TABLE charges IN ACCESS SHARE MODE")
        run = asyncio.create_task(migrate(canary=0))
        await asyncio.wait_for(held_up.wait(), 30)
        halfway = (await revisions_of(onlooker))["second"]

    outcome = await run

    assert BEFORE < halfway < revision
    assert (outcome.failed, outcome.results[-1].name, outcome.results[-1].attempts > 1) == ([], "second", True)
    assert set((await revisions_of(control)).values()) == {revision}
    assert "note" in await columns(control, trio["second"].schema_name, "charges")


async def test_a_new_tenant_gets_what_an_online_revision_says_for_empty_schemas(control, release, provision_tenant, trio, migrate):
    release.write("tenant", ONLINE_UP, ONLINE_BACK, declarations=ONLINE)
    await migrate()

    tenant, _ = await provision_tenant("fourth")

    new, old = await catalog(control, tenant.schema_name), await catalog(control, trio["first"].schema_name)
    unlike = {str(row).replace(tenant.schema_name, "") for row in new} ^ {str(row).replace(trio["first"].schema_name, "") for row in old}
    assert unlike == set()


async def test_an_online_revision_that_fails_says_why_and_is_tried_again(control, release, tenant, migrate):
    release.write("tenant", ONLINE_UP, ONLINE_BACK, declarations=ONLINE)
    await control.execute(f"ALTER TABLE {tenant.schema_name}.customers RENAME COLUMN email TO mail")

    failed = await migrate()
    await control.execute(f"ALTER TABLE {tenant.schema_name}.customers RENAME COLUMN mail TO email")
    again = await migrate()

    assert 'column "email" does not exist' in (failed.failed[0].error or "")
    assert again.failed == []


async def test_the_last_revision_can_be_taken_back_and_taken_again(control, release, trio, migrate):
    await create_analyst(control, "second")
    before = {name: await catalog(control, tenant.schema_name) for name, tenant in trio.items()}
    revision = release.add(
        "tenant", f"{ADD}; ALTER TABLE charges ADD COLUMN note text", back=f"{DROP}; ALTER TABLE charges DROP COLUMN note"
    )

    await migrate()
    up = {name: await catalog(control, tenant.schema_name) for name, tenant in trio.items()}
    taken_back = await migrate(back=True)
    down, state = {name: await catalog(control, tenant.schema_name) for name, tenant in trio.items()}, await revisions_of(control)
    await migrate()

    assert before != up
    assert down == before
    assert [(result.from_revision, result.to_revision, result.error) for result in taken_back.results] == [(revision, BEFORE, None)] * 3
    assert set(state.values()) == {BEFORE}
    assert {name: await catalog(control, tenant.schema_name) for name, tenant in trio.items()} == up


async def test_taking_back_a_column_that_a_view_reads_leaves_the_views_that_can_do_without(control, release, tenant, migrate):
    release.add("tenant", ADD, back=DROP)
    release.add_view("customers_known", "CREATE VIEW customers_known AS SELECT nickname FROM customers;")
    await migrate()
    up = await catalog(control, tenant.schema_name)

    outcome = await migrate(back=True)
    views = {row["viewname"] for row in await control.fetch("SELECT viewname FROM pg_views WHERE schemaname = $1", tenant.schema_name)}
    await migrate()

    assert outcome.failed == []
    assert views == set(migrations.views()) - {"customers_known"}
    assert await catalog(control, tenant.schema_name) == up


async def test_an_online_revision_may_fail_as_python_does_and_the_others_go_on(control, release, trio, migrate):
    count = 'op.get_bind().execute(sa.text("SELECT count(*) FROM customers")).scalar()'
    release.write("tenant", f"{{}}[{count}]", "pass", declarations=ONLINE)

    outcome = await migrate(canary=0)

    assert [(result.name, result.error) for result in sorted(outcome.failed, key=lambda each: each.name)] == [
        (name, "KeyError: 0") for name in trio
    ]
    assert set((await revisions_of(control)).values()) == {BEFORE}


async def test_an_online_revision_can_be_taken_back(control, release, tenant, migrate):
    before = await catalog(control, tenant.schema_name)
    release.write("tenant", ONLINE_UP, ONLINE_BACK, declarations=ONLINE)
    await migrate()

    outcome = await migrate(back=True)

    assert outcome.failed == []
    assert await catalog(control, tenant.schema_name) == before


async def test_the_control_planes_last_revision_can_be_taken_back_and_taken_again(control, trio, migrate):
    before = await catalog(control, "control")

    revision = await take_back_control_plane(control)
    down = await catalog(control, "control")
    with pytest.raises(InputInvalid, match=f"can only take {migrations.head('control')} back"):
        await take_back_control_plane(control)
    with pytest.raises(InputInvalid, match="control plane"):
        await migrate(back=True)
    outcome = await migrate()

    assert (outcome.control_from, outcome.control_to) == (revision, migrations.head("control"))
    assert down != before
    assert await catalog(control, "control") == before


async def test_a_control_plane_in_use_is_not_taken_back_and_says_so(control, release, connect, migrate):
    release.add("control", "ALTER TABLE control.tenants ADD nickname text", back="ALTER TABLE control.tenants DROP nickname")
    await migrate()
    other = await connect()
    async with other.transaction():
        await other.execute("LOCK TABLE control.tenants IN ACCESS SHARE MODE")
        with pytest.raises(ControlPlaneStays, match="lock timeout"):
            await take_back_control_plane(control)

    await take_back_control_plane(control)


def test_the_code_works_with_the_head_or_with_the_revision_before_it():
    assert revisions.OLDEST in {migrations.head("tenant"), revisions.way_back("tenant").to}
    assert not revisions.outdated(revisions.OLDEST)
    assert not revisions.outdated("9999")
    assert revisions.outdated("0001")


async def test_the_database_going_away_ends_the_run_and_leaves_it_to_be_resumed(control, release, trio, migrate, connect):
    release.add("tenant", ADD)
    release.add("tenant", "SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(Exception, match=r"unavailable") as raised:
        await migrate()

    assert not isinstance(raised.value, asyncpg.PostgresError)
    assert set((await revisions_of(control)).values()) == {BEFORE}
