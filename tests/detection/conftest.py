"""Fixtures: one provisioned tenant for all tests of detection; each test's transaction is rolled back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import asyncpg
import pytest
from cryptography.fernet import Fernet

from billingwatch.postgres.connections import ControlConnection, TenantConnection, open_connection
from billingwatch.tenancy.provision import provision
from billingwatch.tenancy.registry import load_tenant
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.sealing import Seal
from billingwatch.tenancy.tenants import Tenant

from .history import History


class Server(Protocol):
    dsn: str

    def dsn_for(self, database: str) -> str: ...


class RolledBack(Exception):
    pass


@pytest.fixture(scope="session")
def shared_tenant(server: Server, template: str) -> Iterator[tuple[str, Tenant]]:
    name = f"detection_{uuid.uuid4().hex[:12]}"

    async def create() -> Tenant:
        admin = await asyncpg.connect(server.dsn)
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        await admin.close()
        control = ControlConnection(await open_connection(server.dsn_for(name), "tests control"))
        seal = Seal([Fernet.generate_key().decode()])
        provisioned = await provision(control, seal, "acme")
        tenant = await load_tenant(control, seal, provisioned.name)
        await control.close()
        return tenant

    async def drop() -> None:
        admin = await asyncpg.connect(server.dsn)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()

    yield server.dsn_for(name), asyncio.run(create())
    asyncio.run(drop())


@pytest.fixture
async def tenant_connection(shared_tenant: tuple[str, Tenant]) -> AsyncIterator[TenantConnection]:
    dsn, tenant = shared_tenant
    connection = await open_connection(dsn, "tests detection")
    scope = tenant_scope(connection, tenant)
    yield await scope.__aenter__()
    # As after an error: nothing of the test stays.
    await scope.__aexit__(RolledBack, RolledBack(), None)
    await connection.close()


@pytest.fixture
def history(tenant_connection: TenantConnection) -> History:
    return History(tenant_connection)
