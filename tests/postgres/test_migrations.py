"""What the revisions build is what the table definitions say, in both planes, and can be taken back."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, create_mock_engine
from sqlalchemy.ext.asyncio import create_async_engine

from billingwatch.postgres import control_plane, migrations, revisions, tenant_plane
from billingwatch.postgres.connections import ControlConnection, open_connection
from billingwatch.postgres.migrations import known_revision, render_drop_views, render_upgrade, render_views, views, views_digest
from billingwatch.tenancy.migrate import ensure_control_plane
from billingwatch.tenancy.scope import tenant_scope

PLANES = {"control": control_plane.metadata, "tenant": tenant_plane.metadata}
VERSIONS = "alembic_version"  # ours to keep, in no metadata

# Everything that a definition can say about a table, in one line each. Comments of the tenant plane are documentation in Python alone.
COLUMNS = """
SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity::text,
       pg_get_expr(d.adbin, d.adrelid) AS given, l.collname, col_description(c.oid, a.attnum) AS comment, obj_description(c.oid) AS about
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
LEFT JOIN pg_collation AS l ON l.oid = a.attcollation
WHERE c.relnamespace = $1::text::regnamespace AND c.relkind = 'r' AND c.relname <> 'alembic_version'
"""
CONSTRAINTS = """
SELECT c.relname, o.conname, pg_get_constraintdef(o.oid)
FROM pg_constraint AS o
JOIN pg_class AS c ON c.oid = o.conrelid
WHERE o.connamespace = $1::text::regnamespace AND c.relname <> 'alembic_version'
"""
INDEXES = """
SELECT c.relname, i.relname, replace(pg_get_indexdef(x.indexrelid), $1 || '.', '')
FROM pg_index AS x
JOIN pg_class AS i ON i.oid = x.indexrelid
JOIN pg_class AS c ON c.oid = x.indrelid
WHERE i.relnamespace = $1::text::regnamespace AND c.relname <> 'alembic_version'
"""


@pytest.fixture
async def empty(server) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database of its own that nobody has set up."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(server.dsn)
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy")
    connection = await open_connection(server.dsn_for(name), "tests")
    yield connection
    await connection.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


def definition(metadata: MetaData) -> str:
    """SQL that creates what a metadata defines."""
    statements: list[str] = []
    engine = create_mock_engine("postgresql://", lambda ddl, *_, **__: statements.append(str(ddl.compile(dialect=engine.dialect))))
    metadata.create_all(engine, checkfirst=False)
    return ";\n".join(statements)


def render_downgrade(plane: migrations.Plane) -> str:
    """SQL that takes a schema from head to nothing."""
    scripts = migrations.scripts_of(plane)
    buffer = io.StringIO()
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "output_buffer": buffer, "literal_binds": True})
    with Operations.context(context):
        for step in scripts.iterate_revisions("head", "base"):
            step.module.downgrade()
    return buffer.getvalue()


async def describe(connection: asyncpg.Connection, schema: str) -> set[tuple[object, ...]]:
    return {tuple(row) for query in (COLUMNS, CONSTRAINTS, INDEXES) for row in await connection.fetch(query, schema)}


async def test_the_control_planes_revisions_build_what_its_tables_say(empty, control):
    await empty.execute(f"CREATE SCHEMA control; {definition(control_plane.metadata)}")

    migrated, defined = await describe(control, "control"), await describe(empty, "control")

    assert len(migrated) > 50
    assert migrated == defined


@pytest.mark.schema_isolation
async def test_the_tenant_planes_revisions_build_what_its_tables_say(empty, control, tenant):
    await empty.execute(
        f"CREATE SCHEMA {tenant.schema_name}; SET search_path = {tenant.schema_name}; {definition(tenant_plane.metadata)}; RESET search_path"
    )

    migrated, defined = await describe(control, tenant.schema_name), await describe(empty, tenant.schema_name)

    assert len(migrated) > 200
    assert migrated == defined


def with_tenant_in_front(described: set[tuple[object, ...]]) -> set[tuple[object, ...]]:
    """What describe() tells of a tenant's schema, as it must be where tenants share tables."""
    shared = set()
    for name, second, third, *rest in described:
        match second, third:
            case int() as number, _:
                shared.add((name, number + 1, third, *rest))
            case _, str() as text if text.startswith(("PRIMARY KEY (", "UNIQUE (")):
                shared.add((name, second, text.replace("(", "(tenant_id, ", 1)))
            case _, str() as text:
                shared.add((name, second, text.replace("USING btree (", "USING btree (tenant_id, ")))
    return shared


@pytest.mark.row_isolation
async def test_the_shared_tables_are_what_the_tenant_planes_say_with_the_tenant_in_front(empty, control, tenant):
    await empty.execute(f"CREATE SCHEMA alone; SET search_path = alone; {definition(tenant_plane.metadata)}; RESET search_path")

    migrated, defined = await describe(control, tenant.schema_name), await describe(empty, "alone")

    assert len(migrated) > 200
    own = {row for row in migrated if "tenant_id" in row[1:3] or row[2] == "NOT NULL tenant_id"}
    assert {row[0] for row in own} == set(tenant_plane.metadata.tables)
    assert migrated - own == with_tenant_in_front(defined)


@pytest.mark.schema_isolation
@pytest.mark.parametrize("plane", PLANES)
async def test_alembic_would_write_no_further_revision(database, tenant, plane):
    path = tenant.schema_name if plane == "tenant" else "pg_catalog"
    engine = create_async_engine(
        database.replace("postgresql://", "postgresql+asyncpg://"), connect_args={"server_settings": {"search_path": path}}
    )

    def compare(connection: Connection) -> list[object]:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_schemas": plane == "control",
            "include_name": lambda name, kind, _: plane == "tenant" or kind != "schema" or name == "control",
            "include_object": lambda _, name, kind, *__: (kind, name) != ("table", VERSIONS),
        }
        return compare_metadata(MigrationContext.configure(connection, opts=options), PLANES[plane])

    async with engine.connect() as connection:
        differences = await connection.run_sync(compare)
    await engine.dispose()

    assert differences == []


async def test_the_control_plane_can_be_taken_back_to_nothing_and_built_again(empty):
    connection = ControlConnection(empty)
    await ensure_control_plane(connection)

    await empty.execute(render_downgrade("control"))
    gone = await empty.fetchval("SELECT to_regnamespace('control')")
    await ensure_control_plane(connection)

    assert gone is None
    assert await empty.fetchval("SELECT count(*) FROM control.tenants") == 0


@pytest.mark.schema_isolation
async def test_a_tenants_tables_can_be_taken_back_to_nothing_and_built_again(control, tenant):
    left = "SELECT count(*) FROM pg_class WHERE relnamespace = $1::text::regnamespace"
    before = await control.fetchval(left, tenant.schema_name)

    async with tenant_scope(control, tenant) as scoped:
        await scoped.execute(render_drop_views() + render_downgrade("tenant"))
    nothing = await control.fetchval(left, tenant.schema_name)
    async with tenant_scope(control, tenant) as scoped:
        await scoped.execute(render_upgrade("tenant") + render_views())

    assert nothing == 0
    assert await control.fetchval(left, tenant.schema_name) == before


@pytest.mark.parametrize("plane", PLANES)
def test_revisions_are_known_by_name_and_head_needs_nothing_more(plane):
    head = migrations.head(plane)

    assert known_revision(plane, head)
    assert not known_revision(plane, "9999")
    assert render_upgrade(plane, head) == ""
    assert render_upgrade(plane) is render_upgrade(plane)


@pytest.mark.parametrize("plane", PLANES)
def test_the_lineage_is_the_one_that_alembic_reads(plane):
    scripts = list(migrations.scripts_of(plane).walk_revisions())

    assert migrations.lineage(plane) == tuple(script.revision for script in reversed(scripts))
    assert migrations.head(plane) == migrations.scripts_of(plane).get_current_head()


def test_a_line_that_forks_is_refused(release):
    before = migrations.head("tenant")
    last = release.add("tenant", "SELECT 1")
    versions = release.root / "tenant" / "versions"
    fork = (versions / f"{last}_test.py").read_text().replace(f'revision = "{last}"', 'revision = "fork"', 1)
    (versions / "fork.py").write_text(fork)
    revisions.forget()

    with pytest.raises(LookupError, match=f"comes after revision {before}, as {last} does"):
        migrations.head("tenant")


def test_a_service_whose_database_is_at_head_does_without_alembic():
    program = "import sys, billingwatch.app; from billingwatch.postgres import migrations; migrations.head('tenant'); print('alembic' in sys.modules)"

    said = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True).stdout

    assert said == "False\n"


@pytest.mark.parametrize("plane", PLANES)
def test_every_revision_says_its_phase_and_has_a_way_back(plane):
    for script in migrations.scripts_of(plane).walk_revisions():
        assert (script.module.__doc__ or "").partition(":")[0] in {"pre", "post"}, f"{script.path}: begin the docstring with its phase"
        assert callable(script.module.downgrade)


def test_every_view_is_dropped_before_and_created_after_a_migration():
    assert list(views()) == sorted(views())
    assert all(
        render_drop_views().count(f"DROP VIEW IF EXISTS {name};") == render_views().count(f"CREATE VIEW {name} ") == 1 for name in views()
    )
    assert re.fullmatch(r"[0-9a-f]{16}", views_digest())
