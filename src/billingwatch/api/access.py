"""Who is asking: the API key decides the tenant, and nothing else in a request can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.enums import HttpMethod
from litestar.handlers import BaseRouteHandler

from billingwatch.api.requests import refuse_unknown_parameters
from billingwatch.errors import ApiKeyReadOnly, QueryTooSlow, Unauthenticated
from billingwatch.postgres.connections import ControlConnection, TenantConnection
from billingwatch.service import Service
from billingwatch.tenancy.lanes import Lane, answer_within, control_plane
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
        async with answer_within(), self._lane() as lane, lane.scope(self.tenant, readonly=True) as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[TenantConnection]:
        async with answer_within(), self._lane() as lane, lane.scope(self.tenant) as connection:
            yield connection

    @asynccontextmanager
    async def backtesting(self) -> AsyncIterator[TenantConnection]:
        """Read the tenant's tables on a lane for long statements, so that reads do not wait for it."""
        async with self.reading():
            pass  # raises DatabaseUnavailable within 10 s when the server does not answer
        async with (
            self._service.backtest_turns.lane_of(self.tenant.tenant_id) as lane,
            lane.scope(self.tenant, readonly=True) as connection,
        ):
            yield connection

    @asynccontextmanager
    async def settings(self) -> AsyncIterator[ControlConnection]:
        """Open the control plane, where the tenant's settings are kept.

        Uses a read lane: a settings change can wait for a row lock, and must not block token look-ups on the
        control lane.
        """
        async with answer_within(), self._lane() as lane, control_plane(lane) as connection:
            yield connection

    @asynccontextmanager
    async def _lane(self) -> AsyncIterator[Lane]:
        """Hold a read lane, and charge the time to the tenant's budget. Raises QueryTooSlow."""
        tenant_id, now = self.tenant.tenant_id, asyncio.get_running_loop().time
        async with self._service.read_turns.lane_of(tenant_id) as lane:
            began = now()
            try:
                yield lane
            except asyncpg.QueryCanceledError as error:
                raise QueryTooSlow from error
            finally:
                self._service.api_budget.charge(tenant_id, now() - began)

    def changed(self) -> None:
        """Drop the cached tenant, because its settings changed. Other processes do so at their next poll."""
        self._service.registry.forget(self.tenant.tenant_id)


async def authenticate(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Find the tenant before anything else of the request is read. Raises Unauthenticated, CallsExceeded."""
    request = cast(Request[Any, Any, Any], connection)
    if request.method == HttpMethod.OPTIONS:
        return
    request.state.access = await provide_access(request)
    refuse_unknown_parameters(request)


def granted_access(request: Request[Any, Any, Any]) -> TenantAccess:
    """Return what `authenticate` found."""
    access: TenantAccess = request.state.access
    return access


async def provide_access(request: Request[Any, Any, Any]) -> TenantAccess:
    """Return the tenant of `Authorization: Bearer <api key>`. Raises Unauthenticated, ApiKeyReadOnly."""
    service: Service = request.app.state.service
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    tenant = None
    if scheme.lower() == "bearer" and 0 < len(key) <= KEY_LIMIT:
        tenant = await service.registry.by_api_key(key.strip())
    if tenant is None or tenant.api_key is None:
        await service.gate.enter()
        raise Unauthenticated
    service.key_use.add(tenant.api_key.key_id)
    if tenant.api_key.scope == "read" and request.method not in READING:
        raise ApiKeyReadOnly
    await service.api_budget.admit(tenant.tenant_id)
    return TenantAccess(tenant, tenant.api_key, service)
