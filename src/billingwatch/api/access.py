"""Who is asking: the API key decides the tenant, and nothing else in a request can."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Request

from billingwatch.errors import ApiKeyReadOnly, Unauthenticated
from billingwatch.postgres.connections import ControlConnection, TenantConnection
from billingwatch.service import Service
from billingwatch.tenancy.lanes import answer_within, control_plane
from billingwatch.tenancy.tenants import ApiKey, Tenant

KEY_LIMIT = 128  # characters
READING = frozenset({"GET", "HEAD"})  # methods of a read-only key


class TenantAccess:
    """The asking tenant and the way into its tables."""

    def __init__(self, tenant: Tenant, key: ApiKey, service: Service) -> None:
        self.tenant = tenant
        self.actor = key.actor
        self.as_of = service.clock
        self._service = service

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[TenantConnection]:
        async with answer_within(), self._service.reads.of(self.tenant.tenant_id).scope(self.tenant, readonly=True) as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[TenantConnection]:
        async with answer_within(), self._service.reads.of(self.tenant.tenant_id).scope(self.tenant) as connection:
            yield connection

    @asynccontextmanager
    async def backtesting(self) -> AsyncIterator[TenantConnection]:
        """For what may take as long as the statement timeout, on a lane that no other request waits for."""
        async with self.reading():
            pass  # a server that does not answer is noticed here, within 10 s
        async with self._service.backtests.scope(self.tenant, readonly=True) as connection:
            yield connection

    @asynccontextmanager
    async def settings(self) -> AsyncIterator[ControlConnection]:
        """Where the tenant's settings are kept. Not by the control plane's own lane: a change may wait for another, and deliveries for the lane."""
        async with answer_within(), control_plane(self._service.reads.of(self.tenant.tenant_id)) as connection:
            yield connection

    def changed(self) -> None:
        """Settings changed: this process knows at once, the others when Postgres tells them."""
        self._service.registry.forget(self.tenant.tenant_id)


async def provide_access(request: Request[Any, Any, Any]) -> TenantAccess:
    """Return the tenant of `Authorization: Bearer <api key>`. Raises Unauthenticated, ApiKeyReadOnly."""
    service: Service = request.app.state.service
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(key) <= KEY_LIMIT:
        raise Unauthenticated
    tenant = await service.registry.by_api_key(key.strip())
    if tenant is None or tenant.api_key is None:
        raise Unauthenticated
    service.key_use.add(tenant.api_key.key_id)
    if tenant.api_key.scope == "read" and request.method not in READING:
        raise ApiKeyReadOnly
    return TenantAccess(tenant, tenant.api_key, service)
