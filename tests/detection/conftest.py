"""Fixtures: one provisioned tenant for all tests of detection; each test's transaction is rolled back."""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Protocol
from urllib.parse import urlsplit

import asyncpg
import pytest
from cryptography.fernet import Fernet

from billingwatch.detection.links import statement_of
from billingwatch.detection.store import AnomalyFilter, list_anomalies
from billingwatch.postgres.connections import ControlConnection, TenantConnection, open_connection
from billingwatch.tenancy.analysts import create_analyst, revoke_analyst
from billingwatch.tenancy.isolation import Isolation, analysts_schema
from billingwatch.tenancy.provision import provision
from billingwatch.tenancy.registry import load_tenant
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.sealing import Seal
from billingwatch.tenancy.tenants import Tenant

from .history import History

SHOWN = 10  # anomalies of a test whose SQL is run


class Server(Protocol):
    dsn: str

    def dsn_for(self, database: str) -> str: ...


class RolledBack(Exception):
    pass


@pytest.fixture(scope="session")
def shared_tenants(server: Server, templates: Callable[[Isolation], str]) -> Iterator[Callable[[Isolation], tuple[str, Tenant]]]:
    """One tenant for each isolation that is asked for."""
    made: dict[Isolation, tuple[str, Tenant]] = {}

    async def create(name: str, template: str) -> Tenant:
        admin = await asyncpg.connect(server.dsn)
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        await admin.close()
        control = ControlConnection(await open_connection(server.dsn_for(name), "tests control"))
        seal = Seal([Fernet.generate_key().decode()])
        provisioned = await provision(control, seal, "acme")
        tenant = await load_tenant(control, seal, provisioned.name)
        await control.close()
        return tenant

    async def drop(dsn: str) -> None:
        admin = await asyncpg.connect(server.dsn)
        await admin.execute(f"DROP DATABASE {urlsplit(dsn).path.lstrip('/')} WITH (FORCE)")
        await admin.close()

    def tenant_of(kind: Isolation) -> tuple[str, Tenant]:
        if kind not in made:
            name = f"detection_{uuid.uuid4().hex[:12]}"
            made[kind] = server.dsn_for(name), asyncio.run(create(name, templates(kind)))
        return made[kind]

    yield tenant_of
    for dsn, _ in made.values():
        asyncio.run(drop(dsn))


@pytest.fixture(scope="module")
def shared_tenant(shared_tenants: Callable[[Isolation], tuple[str, Tenant]], isolation: Isolation) -> tuple[str, Tenant]:
    return shared_tenants(isolation)


@pytest.fixture
async def tenant_connection(shared_tenant: tuple[str, Tenant]) -> AsyncIterator[TenantConnection]:
    dsn, tenant = shared_tenant
    connection = await open_connection(dsn, "tests detection")
    scope = tenant_scope(connection, tenant)
    yield await scope.__aenter__()
    # As after an error: nothing of the test stays.
    await scope.__aexit__(RolledBack, RolledBack(), None)
    await connection.close()


@pytest.fixture(scope="module")
def shared_analyst(shared_tenant: tuple[str, Tenant]) -> Iterator[str]:
    """The role of an analyst of that tenant; roles outlive databases, so it is revoked in the end."""
    dsn, tenant = shared_tenant

    async def create() -> str:
        connection = await open_connection(dsn, "tests control")
        made = await create_analyst(ControlConnection(connection), tenant.name)
        await connection.close()
        return made.role

    async def revoke(role: str) -> None:
        connection = await open_connection(dsn, "tests control")
        await revoke_analyst(ControlConnection(connection), role)
        await connection.close()

    role = asyncio.run(create())
    yield role
    asyncio.run(revoke(role))


@pytest.fixture
async def history(tenant_connection: TenantConnection, shared_tenant: tuple[str, Tenant], shared_analyst: str) -> AsyncIterator[History]:
    """A tenant's history. Whatever anomalies a test makes, an analyst can see the rows behind them with the SQL that they carry."""
    made = History(tenant_connection)
    yield made
    with contextlib.suppress(asyncpg.InFailedSQLTransactionError):  # of a test that failed
        anomalies = await list_anomalies(tenant_connection, AnomalyFilter(retracted=True), limit=SHOWN)
        schema_name = shared_tenant[1].schema_name
        await tenant_connection.execute(f"SET LOCAL search_path = {analysts_schema(schema_name)}; SET LOCAL ROLE {shared_analyst}")
        for anomaly in anomalies:
            named = set(re.findall(r"'([^']*)'", statement_of(anomaly)))
            shown = {row["id"] for row in await tenant_connection.fetch(statement_of(anomaly))}
            assert shown <= named or " IN " not in statement_of(anomaly), anomaly.detector
        await tenant_connection.execute(f"RESET ROLE; SET LOCAL search_path = {schema_name}")
