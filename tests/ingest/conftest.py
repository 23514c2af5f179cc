"""Fixtures of ingest: recorders and what they stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from billingwatch.ingest.recorder import Recorder
from billingwatch.tenancy.lanes import Lane, Lanes
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.tenants import Tenant

MakeRecorder = Callable[..., Recorder]
Rows = Callable[[Tenant, str], Awaitable[list[tuple[Any, ...]]]]


@pytest.fixture
async def make_recorder(database) -> AsyncIterator[MakeRecorder]:
    made: list[Recorder] = []

    def make(*, lanes: int = 1, queue_limit: int = 1000, dsn: str = database, on_recorded=lambda _: None, **lane_options: int) -> Recorder:
        made.append(
            Recorder(
                Lanes(lambda number: Lane(dsn, f"ingest {number}", **lane_options), lanes), queue_limit=queue_limit, on_recorded=on_recorded
            )
        )
        return made[-1]

    yield make
    for recorder in made:
        await recorder.close()


@pytest.fixture
async def rows(connect) -> Rows:
    """Rows of a query in a tenant's schema."""
    connection = await connect()

    async def read(tenant: Tenant, query: str) -> list[tuple[Any, ...]]:
        async with tenant_scope(connection, tenant, readonly=True) as scoped:
            return [tuple(row) for row in await scoped.fetch(query)]

    return read


@pytest.fixture
async def pending(control) -> Callable[[], Awaitable[list[tuple[int, str]]]]:
    """(tenant_id, event_id) of what waits for processing, in the order of arrival."""

    async def read() -> list[tuple[int, str]]:
        return [tuple(row) for row in await control.fetch("SELECT tenant_id, event_id FROM control.pending_events ORDER BY position")]

    return read
