"""The control plane is set up once, and migrated whole or not at all."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from billingwatch.errors import SchemaOutdated
from billingwatch.postgres import migrations
from billingwatch.postgres.connections import ControlConnection, open_connection
from billingwatch.tenancy.migrate import ensure_control_plane

pytestmark = pytest.mark.schema_isolation  # what migrates the schema of all tenants is in test_row_isolation.py


@pytest.fixture
async def empty_database(server) -> AsyncIterator[str]:
    """DSN of a database that nobody has set up."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(server.dsn)
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy")
    yield server.dsn_for(name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


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
