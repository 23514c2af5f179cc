"""The one door to tenant tables: a transaction whose first act is to put one tenant's schema, and nothing else, on the path.

What is set (see isolation) holds for the transaction only (SET LOCAL): a pooled connection can never carry one tenant to another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from billingwatch.postgres.connections import TenantConnection, recover
from billingwatch.tenancy.isolation import Placed, entrance


@asynccontextmanager
async def tenant_scope(connection: asyncpg.Connection, tenant: Placed, *, readonly: bool = False) -> AsyncIterator[TenantConnection]:
    """Run one transaction among the tenant's rows: COMMIT on a clean exit, ROLLBACK on an error."""
    enter = entrance(tenant)
    if not connection.is_closed() and connection.is_in_transaction():
        message = "a tenant scope cannot open on a connection that is in a transaction"
        raise RuntimeError(message)
    mode = " READ ONLY" if readonly else ""
    # BEGIN and COMMIT stand inside: whoever is cancelled while they are on their way does not know whether they took effect.
    try:
        # One simple-protocol message, so that entering costs one round trip; the name is checked because it cannot be a parameter.
        await connection.execute(f"BEGIN{mode}; {enter}")
        yield TenantConnection(connection)
        # After a statement failed, and the failure was caught inside, COMMIT rolls back and says so in its tag alone.
        if await connection.execute("COMMIT") != "COMMIT":
            message = "the transaction failed inside its scope and was rolled back"
            raise asyncpg.InFailedSQLTransactionError(message)  # noqa: TRY301 - leaves through the same door as any failure inside
    except BaseException:
        await recover(connection)
        raise
