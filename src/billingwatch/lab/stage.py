"""The stage of a run: a durable database and a data directory of its own, both gone when the run ends, however it ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
from cryptography.fernet import Fernet

from billingwatch.errors import DatabaseUnavailable
from billingwatch.lab.server import ServerProcess
from billingwatch.postgres.connections import ControlConnection, open_connection
from billingwatch.postgres.database import open_database
from billingwatch.postgres.statements import load_statements
from billingwatch.settings import Settings
from billingwatch.tenancy.migrate import ensure_control_plane

sql = load_statements(__file__, "stage.sql")

RATE_LIMIT = 1_000_000  # events/s and tenant: the limit is not what is measured
STATEMENT_TIMEOUT = 3600  # seconds


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run happens. `environ` leads the service to it."""

    settings: Settings
    dsn: str
    directory: Path
    environ: Mapping[str, str]

    def serve(self, *arguments: str) -> ServerProcess:
        """The product's own service, on a free port."""
        return ServerProcess(["billingwatch", "serve", "--port", "0", *arguments], self.environ, self.directory / "serve.log")

    async def connect(self) -> ControlConnection:
        """Open a connection of the bench's own; the caller closes it."""
        return ControlConnection(await open_connection(self.dsn, "billingwatch bench", statement_timeout=STATEMENT_TIMEOUT))

    @asynccontextmanager
    async def control(self) -> AsyncIterator[ControlConnection]:
        """A connection of the bench's own."""
        connection = await self.connect()
        try:
            yield connection
        finally:
            await connection.close()


@contextmanager
def open_stage(settings: Settings, *, durable: bool = True, within: Path | None = None) -> Iterator[Stage]:
    """Set up, and clear away: an embedded server with its default, durable settings, or a database beside the one that is given.

    When it is not speed that is measured, the database need not be `durable`, and no commit waits for the disk.
    The stage's directory is made in `within`, or where temporary files go.
    """
    directory = Path(tempfile.mkdtemp(prefix="billingwatch-bench-", dir=within))
    try:
        directory.chmod(0o711)  # as root the embedded server runs as another user, who must pass through
        own = msgspec.structs.replace(settings, data_dir=directory / "data", secret_key=Fernet.generate_key().decode())
        with _database_of_its_own(own) as own, open_database(own) as database:
            stage = Stage(settings=own, dsn=database.dsn, directory=directory, environ=_environ(own))
            asyncio.run(_set_up(stage, durable=durable))
            yield stage
            with uninterrupted():
                database.release()
    finally:
        with uninterrupted():
            shutil.rmtree(directory, ignore_errors=True)


async def _set_up(stage: Stage, *, durable: bool) -> None:
    async with stage.control() as control:
        await ensure_control_plane(control, isolation=stage.settings.isolation, partitions=stage.settings.partitions)
        if not durable:
            await control.execute(sql["let_commits_fly"])


@contextmanager
def _database_of_its_own(settings: Settings) -> Iterator[Settings]:
    if settings.database_url is None:
        yield settings
        return
    name = f"billingwatch_bench_{uuid.uuid4().hex[:10]}"
    asyncio.run(_administer(settings.database_url, f"CREATE DATABASE {name}"))
    own = msgspec.structs.replace(settings, database_url=urlunsplit(urlsplit(settings.database_url)._replace(path=f"/{name}")))
    try:
        yield own
    finally:
        with uninterrupted():
            asyncio.run(_drop(settings.database_url, name, own.database_url or ""))


async def _drop(dsn: str, name: str, own_dsn: str) -> None:
    """Drop a database, and then the roles that it had, which are the server's and would stay."""
    roles: list[str] = []
    with suppress(asyncpg.PostgresError, DatabaseUnavailable):
        connection = await open_connection(own_dsn, "billingwatch bench")
        try:
            roles = [row["role"] for row in await connection.fetch(sql["roles"])]
        finally:
            await connection.close()
    await _administer(dsn, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", *(f"DROP ROLE IF EXISTS {role}" for role in roles))


async def _administer(dsn: str, *statements: str) -> None:
    connection = await open_connection(dsn, "billingwatch bench", statement_timeout=STATEMENT_TIMEOUT)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def _environ(settings: Settings) -> dict[str, str]:
    given = {name: text for name, text in os.environ.items() if name not in {"BILLINGWATCH_DATABASE_URL", "BILLINGWATCH_CLI_PORT"}}
    return {
        **given,
        "BILLINGWATCH_DATA_DIR": str(settings.data_dir),
        "BILLINGWATCH_SECRET_KEY": settings.secret_key or "",
        "BILLINGWATCH_ISOLATION": settings.isolation,
        "BILLINGWATCH_PARTITIONS": str(settings.partitions),
        "BILLINGWATCH_RATE_LIMIT": str(RATE_LIMIT),
        "BILLINGWATCH_LOG_LEVEL": "warning",
        **({"BILLINGWATCH_DATABASE_URL": settings.database_url} if settings.database_url else {}),
    }


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A second Ctrl-C must not leave a server or a directory behind."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
