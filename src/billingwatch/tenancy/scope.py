"""The one door to tenant tables: a transaction whose first act is to put one tenant's schema, and nothing else, on the path.

The path is set for the transaction only (SET LOCAL): a pooled connection can never carry one tenant's path to another.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import asyncpg

from billingwatch.postgres.connections import UNAVAILABLE, TenantConnection

_SCHEMA_NAME = re.compile(r"tenant_[a-z2-7]{10}")


class InSchema(Protocol):
    @property
    def schema_name(self) -> str: ...


@asynccontextmanager
async def tenant_scope(connection: asyncpg.Connection, tenant: InSchema, *, readonly: bool = False) -> AsyncIterator[TenantConnection]:
    """Run one transaction in the tenant's schema: COMMIT on a clean exit, ROLLBACK on an error."""
    schema_name = checked_schema_name(tenant.schema_name)
    if not connection.is_closed() and connection.is_in_transaction():
        message = "a tenant scope cannot open on a connection that is in a transaction"
        raise RuntimeError(message)
    mode = " READ ONLY" if readonly else ""
    # BEGIN and COMMIT stand inside: whoever is cancelled while they are on their way does not know whether they took effect.
    try:
        # One simple-protocol message, so that entering costs one round trip; the name is checked because it cannot be a parameter.
        await connection.execute(f"BEGIN{mode}; SELECT pg_catalog.set_config('search_path', '{schema_name}', true)")
        yield TenantConnection(connection)
        # After a statement failed, and the failure was caught inside, COMMIT rolls back and says so in its tag alone.
        if await connection.execute("COMMIT") != "COMMIT":
            message = "the transaction failed inside its scope and was rolled back"
            raise asyncpg.InFailedSQLTransactionError(message)  # noqa: TRY301 - leaves through the same door as any failure inside
    except BaseException:
        await _abandon(connection)
        raise


async def _abandon(connection: asyncpg.Connection) -> None:
    try:
        await connection.execute("ROLLBACK")
    except (*UNAVAILABLE, asyncpg.PostgresError, asyncio.CancelledError):
        connection.terminate()


def checked_schema_name(name: str) -> str:
    """Return `name` if it has the form that provisioning gives; anything else never reaches SQL text."""
    if not _SCHEMA_NAME.fullmatch(name):
        message = f"not the name of a tenant schema: {name!r}"
        raise ValueError(message)
    return name
