"""Migrating the control plane and the fleet of tenants: once, all or nothing each, and one that fails holds up nobody."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from billingwatch.errors import SchemaOutdated
from billingwatch.postgres import migrations
from billingwatch.postgres.connections import ControlConnection, open_connection
from billingwatch.tenancy import migrate as migrate_module
from billingwatch.tenancy.migrate import Migrated, count_tenants_behind, ensure_control_plane, migrate_tenants
from billingwatch.tenancy.scope import tenant_scope

pytestmark = pytest.mark.schema_isolation  # what migrates the schema of all tenants is in test_row_isolation.py

REVISION = '''"""pre: made for a test."""
from alembic import op

revision = "{revision}"
down_revision = "{down}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""{sql}""")
'''
BEFORE = migrations.head("tenant")  # what the revisions that a test adds come after
ADD = "ALTER TABLE customers ADD COLUMN nickname text"
CACHED = (
    migrations.head,
    migrations.render_upgrade,
    migrations.views,
    migrations.render_views,
    migrations.render_drop_views,
    migrations.views_digest,
    migrations._scripts,
)


def forget_rendered() -> None:
    for function in CACHED:
        function.cache_clear()


class Release:
    """The next release: this one's schema/ with more in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, plane: str, sql: str) -> str:
        down = migrations.head(plane)
        revision = f"{int(down) + 1:04d}"
        (self.root / plane / "versions" / f"{revision}_test.py").write_text(REVISION.format(revision=revision, down=down, sql=sql))
        forget_rendered()
        return revision

    def add_view(self, name: str, sql: str) -> None:
        (self.root / "views").mkdir(exist_ok=True)
        (self.root / "views" / f"{name}.sql").write_text(sql)
        forget_rendered()


@pytest.fixture
def release(control, monkeypatch, tmp_path) -> Iterator[Release]:
    """Made after the database, which is of this release."""
    root = tmp_path / "schema"
    shutil.copytree(migrations.schema_root(), root, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrations, "schema_root", lambda: root)
    forget_rendered()
    yield Release(root)
    forget_rendered()


@pytest.fixture
async def empty_database(server) -> AsyncIterator[str]:
    """DSN of a database that nobody has set up."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(server.dsn)
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy")
    yield server.dsn_for(name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def migrated(control: ControlConnection) -> list[Migrated]:
    return [one async for one in migrate_tenants(control)]


async def columns(control: ControlConnection, schema_name: str, table: str) -> list[str]:
    rows = await control.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2 ORDER BY ordinal_position",
        schema_name,
        table,
    )
    return [row["column_name"] for row in rows]


async def test_five_processes_set_up_an_empty_database_together(empty_database):
    async def set_up() -> None:
        connection = await open_connection(empty_database, "tests")
        await ensure_control_plane(ControlConnection(connection))
        await connection.close()

    await asyncio.gather(*(set_up() for _ in range(5)))

    connection = await open_connection(empty_database, "tests")
    assert [row["version_num"] for row in await connection.fetch("SELECT version_num FROM control.alembic_version")] == [
        migrations.head("control")
    ]
    assert await connection.fetch("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []
    await connection.close()


async def test_a_control_plane_at_head_is_left_alone(control):
    before = await control.fetchval("SELECT xmin::text FROM control.alembic_version")

    await ensure_control_plane(control)
    await ensure_control_plane(control, upgrade=True)

    assert await control.fetchval("SELECT xmin::text FROM control.alembic_version") == before


async def test_an_older_control_plane_is_upgraded_only_when_asked(control, release):
    revision = release.add("control", "ALTER TABLE control.tenants ADD COLUMN plan text")

    with pytest.raises(SchemaOutdated, match=f"needs {revision}") as refused:
        await ensure_control_plane(control)
    await ensure_control_plane(control, upgrade=True)
    await ensure_control_plane(control)

    assert "billingwatch migrate" in refused.value.hint
    assert await control.fetchval("SELECT version_num FROM control.alembic_version") == revision
    assert await control.fetch("SELECT plan FROM control.tenants") == []


async def test_an_upgrade_of_the_control_plane_that_fails_leaves_it_as_it_was(control, release):
    before = migrations.head("control")
    release.add("control", "ALTER TABLE control.tenants ADD COLUMN plan text; SELECT 1 / 0")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await ensure_control_plane(control, upgrade=True)

    assert await control.fetchval("SELECT version_num FROM control.alembic_version") == before
    assert "plan" not in await columns(control, "control", "tenants")


async def test_a_control_plane_of_a_newer_release_is_refused(control):
    await control.execute("UPDATE control.alembic_version SET version_num = '9999'")

    for upgrade in (False, True):
        with pytest.raises(SchemaOutdated, match="9999, which this release does not know") as refused:
            await ensure_control_plane(control, upgrade=upgrade)

    assert "newer release" in refused.value.hint


async def test_tenants_at_head_are_not_touched(control, tenant):
    assert await count_tenants_behind(control) == 0
    assert await migrated(control) == []


async def test_a_tenant_that_is_behind_comes_to_head_and_keeps_its_rows(control, release, provision_tenant, connect, make_delivery):
    tenant, _ = await provision_tenant()
    connection = await connect()
    async with tenant_scope(connection, tenant) as scoped:
        await scoped.execute(
            "INSERT INTO customers (customer_id, deleted, created_at, updated_at, event_id, version) VALUES ('cus_1', false, now(), now(), 'evt_1', '1')"
        )
    revision = release.add("tenant", ADD)
    release.add_view("customers_known", "CREATE VIEW customers_known AS SELECT customer_id, nickname FROM customers;")

    behind = await count_tenants_behind(control)
    done = await migrated(control)

    assert behind == 1
    assert done == [Migrated(name="acme", from_revision=BEFORE, error=None)]
    async with tenant_scope(connection, tenant) as scoped:
        assert [tuple(row) for row in await scoped.fetch("SELECT customer_id, nickname FROM customers_known")] == [("cus_1", None)]
    assert await control.fetchval("SELECT revision FROM control.tenants") == revision
    assert await count_tenants_behind(control) == 0
    assert await migrated(control) == []


async def test_a_tenant_several_revisions_behind_takes_them_all(control, release, tenant):
    release.add("tenant", ADD)
    release.add("tenant", "ALTER TABLE customers RENAME COLUMN nickname TO alias")

    await migrated(control)

    assert (await columns(control, tenant.schema_name, "customers"))[-1] == "alias"


async def test_views_that_changed_are_replaced_although_no_revision_did(control, release, tenant):
    release.add_view("customers_known", "CREATE VIEW customers_known AS SELECT customer_id FROM customers;")
    await migrated(control)
    release.add_view("customers_known", "CREATE VIEW customers_known AS SELECT email, customer_id FROM customers;")

    done = await migrated(control)

    assert [one.error for one in done] == [None]
    assert await columns(control, tenant.schema_name, "customers_known") == ["email", "customer_id"]


async def test_a_column_that_a_view_reads_may_change(control, release, tenant):
    release.add_view("customers_known", "CREATE VIEW customers_known AS SELECT customer_id, name FROM customers;")
    await migrated(control)
    release.add("tenant", "ALTER TABLE customers ALTER COLUMN name TYPE varchar(500)")

    done = await migrated(control)

    assert [one.error for one in done] == [None]
    assert await columns(control, tenant.schema_name, "customers_known") == ["customer_id", "name"]


async def test_a_new_tenant_is_provisioned_at_the_new_head(control, release, provision_tenant):
    revision = release.add("tenant", ADD)

    tenant, _ = await provision_tenant()

    assert "nickname" in await columns(control, tenant.schema_name, "customers")
    assert await control.fetchval("SELECT revision FROM control.tenants") == revision
    assert await migrated(control) == []


async def test_a_tenant_that_fails_is_reported_and_left_whole_and_the_others_go_on(control, release, provision_tenant):
    tenants = {name: (await provision_tenant(name))[0] for name in ("first", "second", "third")}
    await control.execute(f"ALTER TABLE {tenants['second'].schema_name}.charges ADD COLUMN nickname text")
    revision = release.add("tenant", f"{ADD}; ALTER TABLE charges ADD COLUMN nickname text")

    done = {one.name: one.error for one in await migrated(control)}

    assert done["first"] is done["third"] is None
    assert 'column "nickname" of relation "charges" already exists' in done["second"]
    assert "nickname" not in await columns(control, tenants["second"].schema_name, "customers")
    assert dict(await control.fetch("SELECT name, revision FROM control.tenants")) == {
        "first": revision,
        "second": BEFORE,
        "third": revision,
    }


async def test_a_tenant_that_failed_is_tried_again_by_the_next_run(control, release, provision_tenant):
    tenant, _ = await provision_tenant()
    await control.execute(f"ALTER TABLE {tenant.schema_name}.customers ADD COLUMN nickname text")
    release.add("tenant", ADD)

    first = await migrated(control)
    await control.execute(f"ALTER TABLE {tenant.schema_name}.customers DROP COLUMN nickname")
    second = await migrated(control)

    assert first[0].error is not None
    assert second == [Migrated(name="acme", from_revision=BEFORE, error=None)]


async def test_a_tenant_at_a_revision_of_a_newer_release_is_reported_and_left_alone(control, release, provision_tenant):
    await provision_tenant("older")
    await provision_tenant("newer")
    await control.execute("UPDATE control.tenants SET revision = '9999' WHERE name = 'newer'")
    release.add("tenant", ADD)

    done = {one.name: one.error for one in await migrated(control)}

    assert done["older"] is None
    assert "9999, which this release does not know" in done["newer"]
    assert await control.fetchval("SELECT revision FROM control.tenants WHERE name = 'newer'") == "9999"


async def test_a_tenant_whose_tables_are_held_is_reported_soon_and_the_others_go_on(
    control, release, connect, provision_tenant, monkeypatch
):
    monkeypatch.setattr(migrate_module, "LOCK_TIMEOUT", "50ms")
    held, _ = await provision_tenant("held")
    await provision_tenant("free")
    release.add("tenant", ADD)

    async with tenant_scope(await connect(), held) as scoped:
        await scoped.fetch("SELECT customer_id FROM customers")
        done = {one.name: one.error for one in await migrated(control)}
    again = await migrated(control)

    assert done["free"] is None
    assert "lock timeout" in done["held"]
    assert again == [Migrated(name="held", from_revision=BEFORE, error=None)]


async def test_two_runs_at_once_migrate_each_tenant_once(control, release, connect, provision_tenant):
    for number in range(4):
        await provision_tenant(f"tenant-{number}")
    release.add("tenant", ADD)

    done = await asyncio.gather(migrated(ControlConnection(await connect())), migrated(ControlConnection(await connect())))

    assert [one.error for run in done for one in run if one.error] == []
    assert {one.name for run in done for one in run} == {f"tenant-{number}" for number in range(4)}
    assert await count_tenants_behind(control) == 0


async def test_the_lock_timeout_and_the_path_end_with_each_tenant(control, release, tenant):
    release.add("tenant", ADD)

    await migrated(control)

    assert await control.fetchval("SHOW lock_timeout") == "0"
    assert await control.fetchval("SHOW search_path") == "pg_catalog"
