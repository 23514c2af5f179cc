"""Connections: the only module that opens one. Each begins with nothing on its path, so SQL outside a scope finds no table."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, NewType

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
LEAVE_SECONDS = 2.0  # that ROLLBACK or closing may take; a frozen server answers neither
SILENCE = 5  # seconds that an answer may be late beyond the statement timeout


async def open_connection(dsn: str, application_name: str, *, statement_timeout: int = 30, lock_timeout: float = 0) -> asyncpg.Connection:
    """Connect; raise DatabaseUnavailable when that fails. The timeouts are in seconds; a lock_timeout of 0 is none."""
    settings = {
        "application_name": application_name,
        "search_path": "pg_catalog",
        "timezone": "UTC",
        "jit": "off",
        "bytea_output": "hex",  # of bytes inside to_json
        "statement_timeout": str(statement_timeout * 1000),
        "lock_timeout": str(round(lock_timeout * 1000)),
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
    """Close a connection that may be broken. Terminate it when closing takes longer than `LEAVE_SECONDS`."""
    await _within(connection, connection.close())


async def recover(connection: asyncpg.Connection) -> None:
    """End the statement and the transaction that a caller left. Terminate the connection if that fails."""
    if not connection.is_closed():
        await _within(connection, _roll_back(connection))


async def _roll_back(connection: asyncpg.Connection) -> None:
    if not connection.is_in_transaction():
        # A BEGIN whose caller was cancelled may still take effect. The answer to this statement shows it.
        with contextlib.suppress(asyncpg.InFailedSQLTransactionError):
            await connection.execute("SELECT")
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")


async def _within(connection: asyncpg.Connection, leaving: Coroutine[Any, Any, object]) -> None:
    # A task of its own, because the caller's task may be under a time limit that has expired.
    task = asyncio.ensure_future(leaving)
    try:
        await asyncio.wait({task}, timeout=LEAVE_SECONDS)
    finally:
        if not task.done() or task.cancelled() or task.exception() is not None:
            connection.terminate()
            task.cancel()
            task.add_done_callback(_retrieve)


def _retrieve(task: asyncio.Task[object]) -> None:
    """Mark the task's exception as handled."""
    if not task.cancelled():
        task.exception()


def _plain(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__


def _encode_jsonb(value: object) -> bytes:
    return b"\x01" + msgspec.json.encode(value)


def _decode_jsonb(data: bytes) -> object:
    return msgspec.json.decode(data[1:])
