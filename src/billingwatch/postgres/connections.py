"""Connections: the only module that opens one. Each begins with nothing on its path, so SQL outside a scope finds no table."""

from __future__ import annotations

import asyncio
from typing import NewType

import asyncpg
import msgspec

from billingwatch.errors import DatabaseUnavailable
from billingwatch.postgres.scram_only import require_scram

require_scram()

TenantConnection = NewType("TenantConnection", asyncpg.Connection)
"""Inside a tenant scope: a transaction whose search_path is one tenant's schema."""
ControlConnection = NewType("ControlConnection", asyncpg.Connection)
"""For the control plane, whose tables are addressed by qualified name."""

UNAVAILABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a killed backend's last message came between two statements
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,
    OSError,
    TimeoutError,
)
"""What a lost, refused or standby database raises: try again later."""

CONNECT_TIMEOUT = 10  # seconds
SILENCE = 5  # seconds that an answer may be late beyond the statement timeout


async def open_connection(dsn: str, application_name: str, *, statement_timeout: int = 30) -> asyncpg.Connection:
    """Connect; raise DatabaseUnavailable when that fails. `statement_timeout` is in seconds."""
    settings = {
        "application_name": application_name,
        "search_path": "pg_catalog",
        "timezone": "UTC",
        "jit": "off",
        "statement_timeout": str(statement_timeout * 1000),
        "idle_in_transaction_session_timeout": "60000",
    }
    try:
        # The server ends a slow statement; a server that has gone silent is given up a little later.
        patience = statement_timeout + SILENCE
        connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT, command_timeout=patience, server_settings=settings)
    except (*UNAVAILABLE, asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError, ValueError) as error:
        raise DatabaseUnavailable(reason=_plain(error)) from error
    try:
        await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=_encode_jsonb, decoder=_decode_jsonb, format="binary")
    except BaseException as error:
        connection.terminate()
        if isinstance(error, UNAVAILABLE):
            raise DatabaseUnavailable(reason=_plain(error)) from error
        raise
    return connection


async def discard(connection: asyncpg.Connection) -> None:
    """Close a connection that may be broken, within 2 seconds. A cancellation is raised after the connection is closed."""
    try:
        await connection.close(timeout=2)
    except (*UNAVAILABLE, asyncpg.PostgresError):
        connection.terminate()
    except asyncio.CancelledError:
        # A task that swallowed its cancellation would run on, and who stops it would wait for ever.
        connection.terminate()
        raise


def _plain(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__


def _encode_jsonb(value: object) -> bytes:
    return b"\x01" + msgspec.json.encode(value)


def _decode_jsonb(data: bytes) -> object:
    return msgspec.json.decode(data[1:])
