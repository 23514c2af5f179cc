"""What a command works with: the settings, the database for as long as the command runs, one control connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

from billingwatch.postgres.connections import ControlConnection, open_connection
from billingwatch.postgres.database import Database, open_database
from billingwatch.settings import Settings, load_settings
from billingwatch.tenancy.fleet_settings import check_fleet_settings, check_key_sample, key_sample
from billingwatch.tenancy.migrate import ensure_control_plane
from billingwatch.tenancy.registry import load_tenant
from billingwatch.tenancy.sealing import Seal, open_seal
from billingwatch.tenancy.tenants import Tenant

T = TypeVar("T")


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
        seal = open_seal(self.settings)
        check_key_sample(seal, self.key_sample)
        return seal

    async def tenant(self, name: str) -> Tenant:
        """Read a tenant without its signing secrets. Raises TenantNotFound."""
        return await load_tenant(self.control, None, name)


async def check_database(settings: Settings, database: Database) -> None:
    """Set up an empty database and check what a service needs.

    Raises DatabaseUnavailable, SchemaOutdated, SecretKeyUnusable, FleetSettingMismatch.
    """
    seal = open_seal(settings)
    async with _connected(settings, database, prepare=True) as session:
        await check_fleet_settings(session.control, settings, seal)


def run_session(work: Callable[[Session], Awaitable[T]], *, prepare: bool = True) -> T:
    """Open the database, run `work` with it, close it; the embedded server is stopped again if nobody else uses it.

    With `prepare` an empty database is set up, and one of another release is refused: SchemaOutdated.
    """
    settings = load_settings()
    with open_database(settings) as database:

        async def run() -> T:
            async with _connected(settings, database, prepare=prepare) as session:
                return await work(session)

        return asyncio.run(run())


@asynccontextmanager
async def _connected(settings: Settings, database: Database, *, prepare: bool) -> AsyncIterator[Session]:
    connection = await open_connection(database.dsn, "billingwatch cli", statement_timeout=3600)
    try:
        control = ControlConnection(connection)
        sample = None
        if prepare:
            await ensure_control_plane(control, isolation=settings.isolation, partitions=settings.partitions)
            sample = await key_sample(control)
        yield Session(settings=settings, database=database, control=control, key_sample=sample)
    finally:
        await connection.close()
