"""The arm without lanes keeps the product's promises: it is slower, not wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from billingwatch.ingest.recorder import Recorded
from billingwatch.lab.isolation.pooled import PooledRecorder, PooledService
from billingwatch.tenancy.scope import tenant_scope


@pytest.fixture
async def service(settings, database) -> AsyncIterator[PooledService]:
    service = PooledService(settings, database, processing=False)
    await service.start()
    yield service
    await service.close()


async def test_events_of_many_tenants_at_once_are_each_recorded_once_and_where_they_belong(
    service, provision_tenant, make_delivery, control
):
    tenants = [(await provision_tenant(f"tenant-{number}"))[0] for number in range(6)]
    deliveries = [make_delivery(tenant, f"evt_{number}") for tenant in tenants for number in range(5)]

    first = await asyncio.gather(*(service.recorder.record(delivery) for delivery in deliveries))
    again = await asyncio.gather(*(service.recorder.record(delivery) for delivery in deliveries))

    assert isinstance(service.recorder, PooledRecorder)
    assert first == [Recorded(is_new=True)] * 30
    assert again == [Recorded(is_new=False)] * 30
    assert await control.fetchval("SELECT count(*) FROM control.pending_events") == 30
    for tenant in tenants:
        async with tenant_scope(control, tenant, readonly=True) as scoped:
            rows = await scoped.fetch("SELECT event_id, deliveries FROM events ORDER BY event_id")
        assert [tuple(row) for row in rows] == [(f"evt_{number}", 2) for number in range(5)]
