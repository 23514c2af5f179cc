"""Part of a transaction that can fail without the rest. asyncpg's own would refuse: the tenant scope began the transaction by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from billingwatch.postgres.connections import UNAVAILABLE


@asynccontextmanager
async def savepoint(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Undo what the block did when it raises; the error goes on, the transaction too."""
    await connection.execute("SAVEPOINT part")
    try:
        yield
    except UNAVAILABLE:  # nobody is there who could undo it, and nothing will be committed
        raise
    except Exception:
        await connection.execute("ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part")
        raise
    await connection.execute("RELEASE SAVEPOINT part")
