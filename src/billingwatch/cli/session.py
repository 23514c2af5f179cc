"""What a command works with: the settings, the database for as long as the command runs, one control connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import asyncpg
import msgspec

from billingwatch.errors import DatabaseUnavailable
from billingwatch.postgres.connections import UNAVAILABLE, ControlConnection, discard, open_connection
from billingwatch.postgres.database import Database, open_database
from billingwatch.settings import Settings, load_settings
from billingwatch.tenancy.fleet_settings import check_fleet_settings, check_key_sample, key_sample
from billingwatch.tenancy.migrate import ensure_control_plane
from billingwatch.tenancy.registry import load_tenant
from billingwatch.tenancy.sealing import Seal, open_seal
from billingwatch.tenancy.tenants import Tenant

T = TypeVar("T")

# OSError alone may come from a file. What is not here is a defect, and keeps its traceback.
LOST = (
    *(kind for kind in UNAVAILABLE if kind is not OSError),
    ConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
    asyncpg.OperatorInterventionError,
)
"""What a database raises that a command lost, or that cannot do its work now."""
CHECK_EFFECT = "the command may have taken effect: check that with `list` or `show` before you run it again"


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One command's way to the database."""

    settings: Settings
    database: Database
    control: ControlConnection
    key_sample: bytes | None = None
    """A ciphertext that the secret key must decrypt."""

    @property
    def dsn(self) -> str:
        return self.database.dsn

    @property
    def seal(self) -> Seal:
        """The key of this database. SecretKeyUnusable when the configured key is another one."""
        seal = open_seal(self.settings, may_create=self.key_sample is None)
        check_key_sample(seal, self.key_sample)
        return seal

    async def tenant(self, name: str) -> Tenant:
        """Read a tenant without its signing secrets. Raises TenantNotFound."""
        return await load_tenant(self.control, None, name)


async def check_database(settings: Settings, database: Database) -> None:
    """Set up an empty database and check what a service needs.

    Raises DatabaseUnavailable, SchemaOutdated, SecretKeyUnusable, FleetSettingMismatch.
    """
    async with _connected(settings, database, prepare=True) as session:
        seal = open_seal(settings, may_create=session.key_sample is None)
        await check_fleet_settings(session.control, settings, seal)


def run_session(work: Callable[[Session], Awaitable[T]], *, prepare: bool = True) -> T:
    """Open the database, run `work` with it, close it; the embedded server is stopped again if nobody else uses it.

    With `prepare` an empty database is set up, and one of another release is refused: SchemaOutdated.
    """
    settings = load_settings()
    with open_database(settings) as database:

        async def run() -> T:
            with _named_losses():
                async with _connected(settings, database, prepare=prepare) as session:
                    return await work(session)

        return asyncio.run(run())


@asynccontextmanager
async def _connected(settings: Settings, database: Database, *, prepare: bool) -> AsyncIterator[Session]:
    try:
        connection = await open_connection(database.dsn, "billingwatch cli", statement_timeout=3600)
    except DatabaseUnavailable as error:
        error.hint = _where(settings)
        raise
    try:
        control = ControlConnection(connection)
        sample = None
        if prepare:
            await ensure_control_plane(control, isolation=settings.isolation, partitions=settings.partitions)
            sample = await key_sample(control)
        yield Session(settings=settings, database=database, control=control, key_sample=sample)
    finally:
        await discard(connection)


@contextmanager
def _named_losses() -> Iterator[None]:
    """Raise DatabaseUnavailable for what a lost, read-only or full database raises in the middle of a command."""
    try:
        yield
    except LOST as error:
        raise DatabaseUnavailable(reason=str(error) or type(error).__name__, hint=CHECK_EFFECT) from error


def _where(settings: Settings) -> str:
    """Return where to look when the database does not accept the connection."""
    if settings.database_url is None:
        return f"see {settings.data_dir / 'postgres' / 'postgres.log'}"
    return "start the server that BILLINGWATCH_DATABASE_URL names, or correct that setting"
