from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest

from billingwatch.detection.store import (
    Anomaly,
    AnomalyFilter,
    acknowledge,
    get_anomaly,
    list_anomalies,
    mark_false_positive,
    resolve,
)
from billingwatch.errors import AnomalyClosed, AnomalyNotFound
from billingwatch.postgres.connections import TenantConnection

from .history import DAY, LATER, History, at, charge, invoice

Close = Callable[..., Awaitable[Anomaly]]


async def anomalies_of_five_days(history: History) -> list[Anomaly]:
    await history.see(*(invoice(str(day), day * DAY, total=-100) for day in range(5)))
    return await history.anomalies()


async def test_pages_are_newest_first_and_follow_the_cursor(history: History, tenant_connection: TenantConnection):
    oldest_first = await anomalies_of_five_days(history)

    first = await list_anomalies(tenant_connection, AnomalyFilter(), limit=2)
    second = await list_anomalies(tenant_connection, AnomalyFilter(after=(first[-1].opened_at, first[-1].anomaly_id)), limit=10)

    assert first + second == oldest_first[::-1]


async def test_a_page_can_be_narrowed(history: History, tenant_connection: TenantConnection):
    made = await anomalies_of_five_days(history)
    await history.see(charge("a", 0, customer_id="cus_1"), charge("b", 1, customer_id="cus_1"), charge("c", 1, customer_id="cus_1"))
    await acknowledge(tenant_connection, made[0].anomaly_id, reason=None, as_of=LATER)

    async def subjects(**wanted: object) -> list[str]:
        return [anomaly.subject for anomaly in await list_anomalies(tenant_connection, AnomalyFilter(**wanted), limit=10)]

    assert await subjects(detector="duplicate_charge") == await subjects(severity="critical") == ["cus_1 1000 usd"]
    assert await subjects(status="acknowledged") == ["in_0"]
    assert await subjects(since=at(DAY), until=at(3 * DAY)) == ["in_2", "in_1"]


async def test_what_was_retracted_is_shown_only_when_asked_for(history: History, tenant_connection: TenantConnection):
    await history.see(invoice("a", 0, total=-100))
    await history.see(invoice("a", 0, total=100, snapshot=2))

    shown = await list_anomalies(tenant_connection, AnomalyFilter(), limit=10)
    all_of_them = await list_anomalies(tenant_connection, AnomalyFilter(retracted=True), limit=10)

    assert shown == []
    assert [anomaly.resolution for anomaly in all_of_them] == ["retracted"]


async def test_acknowledging_keeps_who_said_what_and_the_first_time(history: History, tenant_connection: TenantConnection):
    await history.see(invoice("a", 0, total=-100))
    anomaly_id = (await history.anomaly()).anomaly_id

    await acknowledge(tenant_connection, anomaly_id, reason="on it", as_of=at(10))
    again = await acknowledge(tenant_connection, anomaly_id, reason=None, as_of=at(20))

    assert (again.status, again.reason, again.acknowledged_at, again.updated_at) == ("acknowledged", "on it", at(10), at(20))


async def test_a_person_resolves_an_anomaly(history: History, tenant_connection: TenantConnection):
    await history.see(invoice("a", 0, total=-100))

    resolved = await resolve(tenant_connection, (await history.anomaly()).anomaly_id, reason="credited by hand", as_of=at(10))

    assert (resolved.status, resolved.resolution, resolved.resolved_at, resolved.reason) == (
        "resolved",
        "manual",
        at(10),
        "credited by hand",
    )


async def test_an_anomaly_of_a_test_clocks_future_can_be_resolved_now(history: History, tenant_connection: TenantConnection):
    await history.see(invoice("a", 1000 * DAY, total=-100), as_of=at(0))

    resolved = await resolve(tenant_connection, (await history.anomaly()).anomaly_id, reason=None, as_of=at(0))

    assert resolved.resolved_at == at(1000 * DAY)


async def test_what_is_over_can_still_be_called_a_false_positive(history: History, tenant_connection: TenantConnection):
    await history.see(invoice("a", 0, total=-100, status="void", voided_at=at(5)))

    marked = await mark_false_positive(tenant_connection, (await history.anomaly()).anomaly_id, reason="a gift", as_of=at(10))

    assert (marked.status, marked.resolution, marked.resolved_at, marked.reason) == ("false_positive", None, at(5), "a gift")


@pytest.mark.parametrize("first", [resolve, mark_false_positive])
@pytest.mark.parametrize("second", [acknowledge, resolve])
async def test_what_a_person_closed_is_not_closed_again(history: History, tenant_connection: TenantConnection, first: Close, second: Close):
    await history.see(invoice("a", 0, total=-100))
    anomaly_id = (await history.anomaly()).anomaly_id
    closed = await first(tenant_connection, anomaly_id, reason=None, as_of=at(10))

    with pytest.raises(AnomalyClosed, match=closed.status):
        await second(tenant_connection, anomaly_id, reason=None, as_of=at(20))

    assert await get_anomaly(tenant_connection, anomaly_id) == closed


@pytest.mark.parametrize("close", [acknowledge, resolve, mark_false_positive])
async def test_what_was_retracted_cannot_be_closed(history: History, tenant_connection: TenantConnection, close: Close):
    await history.see(invoice("a", 0, total=-100))
    await history.see(invoice("a", 0, total=100, snapshot=2))
    (retracted,) = await history.anomalies(retracted=True)

    with pytest.raises(AnomalyClosed):
        await close(tenant_connection, retracted.anomaly_id, reason=None, as_of=LATER)


@pytest.mark.parametrize("close", [acknowledge, resolve, mark_false_positive])
async def test_an_unknown_anomaly_is_not_found(tenant_connection: TenantConnection, close: Close):
    with pytest.raises(AnomalyNotFound):
        await close(tenant_connection, uuid4(), reason=None, as_of=LATER)
