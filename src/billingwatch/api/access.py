"""Who is asking: the API key decides the tenant, and nothing else in a request can."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from billingwatch.errors import Unauthenticated
from billingwatch.postgres.connections import ControlConnection, TenantConnection
from billingwatch.service import Service
from billingwatch.tenancy.lanes import control_plane
from billingwatch.tenancy.provision import API_KEY_HINT
from billingwatch.tenancy.tenants import Tenant

KEY_LIMIT = 128  # characters


class TenantAccess:
    """The asking tenant and the way into its tables."""

    def __init__(self, tenant: Tenant, key: str, service: Service) -> None:
        self.tenant = tenant
        self.actor = key[:API_KEY_HINT]
        self.as_of = service.clock
        self._service = service

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[TenantConnection]:
        async with self._service.reads.of(self.tenant.tenant_id).scope(self.tenant, readonly=True) as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[TenantConnection]:
        async with self._service.reads.of(self.tenant.tenant_id).scope(self.tenant) as connection:
            yield connection

    @asynccontextmanager
    async def backtesting(self) -> AsyncIterator[TenantConnection]:
        """For what may take long: nobody who reads waits for it."""
        async with self._service.backtests.scope(self.tenant, readonly=True) as connection:
            yield connection

    @asynccontextmanager
    async def settings(self) -> AsyncIterator[ControlConnection]:
        """Where the tenant's settings are kept. Not by the control plane's own lane: a change may wait for another, and deliveries for the lane."""
        async with control_plane(self._service.reads.of(self.tenant.tenant_id)) as connection:
            yield connection

    def changed(self) -> None:
        """Settings changed: this process knows at once, the others when Postgres tells them."""
        self._service.registry.forget(self.tenant.tenant_id)


async def require_access(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Check the API key as a guard, because Litestar reads the body only after its guards."""
    connection.scope["access"] = await _access(connection)  # type: ignore[typeddict-unknown-key]


async def provide_access(request: Request[Any, Any, Any]) -> TenantAccess:
    """Return what the guard found."""
    access: TenantAccess = request.scope["access"]  # type: ignore[typeddict-item]
    return access


async def _access(request: ASGIConnection[Any, Any, Any, Any]) -> TenantAccess:
    """The tenant of `Authorization: Bearer <api key>`; Unauthenticated."""
    service: Service = request.app.state.service
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(key) <= KEY_LIMIT:
        raise Unauthenticated
    tenant = await service.registry.by_api_key(key.strip())
    if tenant is None:
        raise Unauthenticated
    return TenantAccess(tenant, key.strip(), service)
