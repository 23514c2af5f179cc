"""Online revisions: Alembic itself, connected to one tenant's schema."""

from __future__ import annotations

import asyncpg
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from billingwatch.postgres.connections import open_connection
from billingwatch.postgres.revisions import OnlineStep
from billingwatch.tenancy.isolation import checked_schema_name

LOCK_TIMEOUT = "5s"  # CREATE INDEX CONCURRENTLY also waits for transactions that began before it
STATEMENT_TIMEOUT = 24 * 3600  # seconds; a large backfill takes its time, and holds nobody up


async def run_online(dsn: str, schema_name: str, step: OnlineStep) -> None:
    """Take a step, in a transaction unless it leaves that with `op.get_context().autocommit_block()`.

    Raises asyncpg.PostgresError as if there were no SQLAlchemy in between.
    """

    async def connect() -> asyncpg.Connection:
        connection = await open_connection(dsn, "billingwatch migrate online", statement_timeout=STATEMENT_TIMEOUT)
        # For the session, unlike everywhere else: an autocommit block has no transaction to set it for, and nobody else gets this connection.
        await connection.execute(f"SET search_path = {checked_schema_name(schema_name)}; SET lock_timeout = '{LOCK_TIMEOUT}'")
        return connection

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_run, step)
    except DBAPIError as error:
        cause = error.orig.__cause__ if error.orig is not None else None
        if isinstance(cause, asyncpg.PostgresError):
            raise cause from error
        raise
    finally:
        await engine.dispose()


def _run(connection: Connection, step: OnlineStep) -> None:
    context = MigrationContext.configure(connection, opts={"transaction_per_migration": True})
    take = step.bound_to(Operations(context))
    with context.begin_transaction(_per_migration=True):
        take()
