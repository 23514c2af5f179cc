"""Provisioning as Alembic's manual has it: connect, and run every revision in the tenant's schema."""

from __future__ import annotations

from pathlib import Path

import asyncpg
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from billingwatch.lab.isolation.world import Task
from billingwatch.postgres import migrations
from billingwatch.postgres.connections import open_connection
from billingwatch.postgres.revisions import OnlineStep
from billingwatch.tenancy.isolation import checked_schema_name, new_schema_name


async def create_online(task: Task) -> str:
    """Make a schema with all its tables and views, and return its name."""
    name = checked_schema_name(new_schema_name())

    async def connect() -> asyncpg.Connection:
        connection = await open_connection(task.stage.dsn, "billingwatch lab online")
        await connection.execute(f"CREATE SCHEMA {name}")
        await connection.execute(f"SET search_path = {name}")
        return connection

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()
    return name


def _upgrade(connection: Connection) -> None:
    operations = Operations(MigrationContext.configure(connection))
    for script in reversed(list(migrations.scripts_of("tenant").walk_revisions())):
        OnlineStep(path=Path(script.path), function="upgrade").bound_to(operations)()
    for view in migrations.views().values():
        for statement in view.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
