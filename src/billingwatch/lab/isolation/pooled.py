"""The service as most people would build it: any connection of a pool, a transaction with SET LOCAL search_path for each event.

Everything else (HTTP, signatures, the tenants' registry) is the product's, so that only the way to the database differs.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterable
from typing import cast

import asyncpg
import uvicorn
from asyncpg.pool import PoolConnectionProxy

from billingwatch.app import create_app
from billingwatch.errors import Overloaded
from billingwatch.ingest.record import Delivery
from billingwatch.ingest.recorder import LaneRecorder, Recorded, Records
from billingwatch.logs import configure_logs
from billingwatch.postgres.connections import UNAVAILABLE
from billingwatch.postgres.database import open_database
from billingwatch.postgres.statements import load_statements
from billingwatch.service import Service
from billingwatch.settings import load_settings
from billingwatch.tenancy.scope import tenant_scope

sql = load_statements(__file__, "pooled.sql")

CONNECTIONS = 10  # what asyncpg's pool has unless told otherwise


class PooledRecorder:
    """Records each event by itself, on whichever connection is free."""

    lanes: tuple[LaneRecorder, ...] = ()

    def __init__(self, pool: asyncpg.Pool) -> None:  # noqa: TID251 - see below
        self._pool = pool

    async def record(self, delivery: Delivery) -> Recorded:
        """Committed when it returns; Overloaded when the database is away."""
        try:
            async with self._pool.acquire() as connection:
                return Recorded(await _record(connection, delivery))
        except UNAVAILABLE as error:
            raise Overloaded(reason=str(error)) from error

    async def close(self) -> None:
        await self._pool.close()


class PooledService(Service):
    """The product's service with another recorder."""

    async def open_recorder(self, on_recorded: Callable[[Iterable[int]], None]) -> Records:  # noqa: ARG002 - the product's signature
        """Open the pool. Whoever processes finds the events by polling."""
        return PooledRecorder(
            await asyncpg.create_pool(  # noqa: TID251 - the arm that shows what lanes are for
                self.dsn,
                min_size=CONNECTIONS,
                max_size=CONNECTIONS,
                server_settings={"application_name": "billingwatch ingest", "search_path": "pg_catalog", "timezone": "UTC", "jit": "off"},
            )
        )


async def _record(connection: PoolConnectionProxy, delivery: Delivery) -> bool:
    envelope = delivery.envelope
    async with tenant_scope(cast(asyncpg.Connection, connection), delivery.tenant) as tenant:
        is_new: bool = await tenant.fetchval(
            sql["insert_event"],
            envelope.event_id,
            envelope.type,
            envelope.api_version,
            envelope.livemode,
            envelope.account,
            envelope.object_id,
            envelope.occurred_at or delivery.received_at,
            delivery.signed_at,
            delivery.received_at,
            delivery.disposition,
            delivery.payload,
        )
        if is_new and delivery.disposition == "process":
            await tenant.execute(sql["insert_pending"], delivery.tenant.tenant_id, envelope.event_id, delivery.received_at)
    return is_new


def main() -> None:
    """Listen on a free port and say which, as `billingwatch serve` does."""
    settings = load_settings()
    configure_logs(log_format=settings.log_format, log_level=settings.log_level)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    sys.stderr.write(f"listening on http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stderr.flush()
    with open_database(settings) as database:
        app = create_app(settings, database.dsn, processing=False, make_service=PooledService)
        uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, server_header=False, lifespan="on")).run(sockets=[listener])


if __name__ == "__main__":
    main()
