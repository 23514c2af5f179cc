"""Traces of refused and ignored deliveries: a row per tenant, written later, kept while the database is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import structlog

from billingwatch.errors import (
    BodyTooLarge,
    DatabaseUnavailable,
    Overloaded,
    RateLimited,
    SignatureInvalid,
    SignatureOutOfTime,
    WebhookTokenUnknown,
)
from billingwatch.ingest.activity import TEXT_LIMIT, Activity
from billingwatch.tenancy.lanes import Lane

ROWS = "SELECT refused, last_refused_at, last_refusal, ignored, last_ignored_at FROM control.ingest_activity ORDER BY tenant_id"


@pytest.fixture
async def make_activity(database, now) -> AsyncIterator[Callable[..., Activity]]:
    lanes: list[Lane] = []

    def make(dsn: str = database, **options: Any) -> Activity:
        lanes.append(Lane(dsn, "tests activity"))
        return Activity(lanes[-1], lambda: now, **options)

    yield make
    for lane in lanes:
        await lane.close()


async def test_refusals_and_ignored_events_are_added_up(make_activity, control, tenant, now):
    activities = [make_activity(), make_activity()]
    for activity in activities:
        activity.refused(tenant, SignatureInvalid())
        activity.refused(tenant, RateLimited())
        activity.ignored(tenant)
        await activity.flush()

    assert [tuple(row) for row in await control.fetch(ROWS)] == [(4, now, f"rate_limited: {RateLimited()}", 2, now)]


async def test_ignored_events_alone_leave_the_last_refusal(make_activity, control, tenant, now):
    activity = make_activity()
    activity.refused(tenant, SignatureInvalid())
    await activity.flush()
    activity.ignored(tenant)
    await activity.flush()

    [row] = await control.fetch(ROWS)

    assert (row["refused"], row["last_refused_at"], row["ignored"]) == (1, now, 1)
    assert row["last_refusal"].startswith("signature_invalid: ")


async def test_flush_without_counts_writes_nothing(make_activity, control, tenant):
    await make_activity().flush()

    assert await control.fetch(ROWS) == []


async def test_counts_are_kept_while_the_database_is_away(make_activity, control, tenant, road, now):
    activity = make_activity(road.dsn)
    activity.refused(tenant, SignatureInvalid())
    await road.cut()
    with pytest.raises(DatabaseUnavailable):
        await activity.flush()
    activity.refused(tenant, Overloaded(reason="x"))
    await road.mend()

    async with asyncio.timeout(20):
        while True:
            try:
                await activity.flush()
            except DatabaseUnavailable:
                await asyncio.sleep(0.1)
                continue
            break

    [row] = await control.fetch(ROWS)
    assert row["refused"] == 2
    assert row["last_refusal"].startswith("overloaded: ")


async def test_counts_of_a_removed_tenant_are_dropped(make_activity, control, provision_tenant):
    tenant, _ = await provision_tenant("acme")
    other, _ = await provision_tenant("other")
    activity = make_activity()
    activity.refused(tenant, SignatureInvalid())
    activity.refused(other, SignatureInvalid())
    await control.execute("DELETE FROM control.tenants WHERE tenant_id = $1", tenant.tenant_id)

    await activity.flush()

    assert [row["tenant_id"] for row in await control.fetch("SELECT tenant_id FROM control.ingest_activity")] == [other.tenant_id]


async def test_flush_does_not_wait_for_a_locked_tenant(make_activity, control, connect, tenant):
    activity = make_activity()
    activity.refused(tenant, SignatureInvalid())
    holder = await connect()
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("SELECT FROM control.tenants FOR UPDATE")

    async with asyncio.timeout(20):
        with pytest.raises(Exception, match="lock timeout"):
            await activity.flush()
    await transaction.rollback()
    await activity.flush()

    assert [row["refused"] for row in await control.fetch(ROWS)] == [1]


async def test_task_writes_every_few_seconds_and_at_the_end(make_activity, control, tenant):
    activity = make_activity(flush_seconds=0.05)
    activity.start()
    activity.refused(tenant, SignatureInvalid())
    async with asyncio.timeout(20):
        while [row["refused"] for row in await control.fetch(ROWS)] != [1]:
            await asyncio.sleep(0.01)
    activity.refused(tenant, SignatureInvalid())
    await activity.close()

    assert [row["refused"] for row in await control.fetch(ROWS)] == [2]


async def test_task_goes_on_after_a_failed_write(make_activity, control, tenant, road):
    activity = make_activity(road.dsn, flush_seconds=0.05)
    await road.cut()
    activity.start()
    with structlog.testing.capture_logs() as lines:
        activity.refused(tenant, SignatureInvalid())
        async with asyncio.timeout(20):
            while not any(line["event"] == "ingest.activity_not_written" for line in lines):
                await asyncio.sleep(0.01)
    await road.mend()

    async with asyncio.timeout(20):
        while [row["refused"] for row in await control.fetch(ROWS)] != [1]:
            await asyncio.sleep(0.05)
    await activity.close()


async def test_log_has_one_line_per_tenant_and_reason(make_activity, provision_tenant):
    acme, _ = await provision_tenant("acme")
    other, _ = await provision_tenant("other")
    activity = make_activity()
    late = SignatureOutOfTime(seconds=412, direction="before", tolerance=300)

    with structlog.testing.capture_logs() as lines:
        for _ in range(50):
            activity.refused(acme, SignatureInvalid())
            activity.refused(acme, late)
            activity.refused(other, BodyTooLarge(limit=5))
            activity.refused(None, WebhookTokenUnknown())

    assert [(line.get("tenant"), line["reason"]) for line in lines] == [
        ("acme", "signature_invalid"),
        ("acme", "clock_out_of_tolerance"),
        ("other", "body_too_large"),
        (None, "unknown_token"),
    ]
    assert "412 s before" in lines[1]["detail"]


async def test_text_of_a_refusal_is_bounded(make_activity, control, tenant):
    activity = make_activity()
    activity.refused(tenant, Overloaded(reason="x\0" * 1000))

    await activity.flush()

    [row] = await control.fetch(ROWS)
    assert len(row["last_refusal"]) == TEXT_LIMIT


async def test_close_returns_while_the_database_is_frozen(make_activity, control, tenant, road):
    activity = make_activity(road.dsn, flush_seconds=60)
    activity.start()
    activity.refused(tenant, SignatureInvalid())
    await activity.flush()  # the lane is connected now
    activity.refused(tenant, SignatureInvalid())
    road.freeze()

    async with asyncio.timeout(10):
        await activity.close()
