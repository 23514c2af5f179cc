"""Pause, resume and the rotation of the webhook URL, as other processes see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import asyncpg
import pytest

from billingwatch.errors import RemovalUnfinished, TenantNotFound
from billingwatch.tenancy import remove as remove_module
from billingwatch.tenancy.lanes import Lane
from billingwatch.tenancy.lifecycle import pause_tenant, resume_tenant, rotate_webhook_url
from billingwatch.tenancy.provision import find_tenant
from billingwatch.tenancy.registry import Registry
from billingwatch.tenancy.remove import remove_tenant

WEEK = timedelta(days=7)


@pytest.fixture
async def registry(database, seal) -> AsyncIterator[Registry]:
    """The registry of a process that follows changes."""
    lane = Lane(database, "tests registry")
    registry = Registry(lane, seal, database)
    registry.start()
    yield registry
    await registry.close()
    await lane.close()


async def until(found: Callable[[], Awaitable[object]], *, seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not await found():
            await asyncio.sleep(0.01)


async def actions(control) -> list[str]:
    return [row["action"] for row in await control.fetch("SELECT action FROM control.audit_log ORDER BY audit_id")]


async def test_pause_and_resume_reach_other_processes(control, registry, tenant, now):
    assert (await registry.by_tenant_id(tenant.tenant_id)).status == "active"

    await pause_tenant(control, tenant.name, as_of=now)
    await until(lambda: has_status(registry, tenant.tenant_id, "paused"))
    await resume_tenant(control, tenant.name, as_of=now + WEEK)
    await until(lambda: has_status(registry, tenant.tenant_id, "active"))

    found = await registry.by_tenant_id(tenant.tenant_id)
    assert (found.pause.paused_at, found.pause.resumed_at) == (now, now + WEEK)
    assert await actions(control) == ["tenant.paused", "tenant.resumed"]


async def has_status(registry: Registry, tenant_id: int, status: str) -> bool:
    return (await registry.by_tenant_id(tenant_id)).status == status


async def test_second_pause_and_second_resume_change_nothing(control, tenant, now):
    first = await pause_tenant(control, tenant.name, as_of=now)
    second = await pause_tenant(control, tenant.name, as_of=now + WEEK)
    shown = await find_tenant(control, tenant.name)
    third = await resume_tenant(control, tenant.name, as_of=now + WEEK)
    fourth = await resume_tenant(control, tenant.name, as_of=now + WEEK)

    assert [first.changed, second.changed, third.changed, fourth.changed] == [True, False, True, False]
    assert (second.paused_at, shown.status, shown.paused_at) == (now, "paused", now)
    assert await actions(control) == ["tenant.paused", "tenant.resumed"]


async def test_pause_soon_after_resume_continues_the_pause(control, tenant, now):
    await pause_tenant(control, tenant.name, as_of=now)
    await resume_tenant(control, tenant.name, as_of=now + WEEK)
    again = await pause_tenant(control, tenant.name, as_of=now + WEEK + timedelta(minutes=5))
    await resume_tenant(control, tenant.name, as_of=now + 2 * WEEK)

    later = await pause_tenant(control, tenant.name, as_of=now + 3 * WEEK)

    assert again.paused_at == now
    assert later.paused_at == now + 3 * WEEK


async def test_failed_removal_is_finished_but_not_undone(control, tenant, now, monkeypatch):
    async def fail(*_: object) -> None:
        raise asyncpg.PostgresError("the disk is full")

    monkeypatch.setattr(remove_module, "_delete_rows", fail)
    with pytest.raises(asyncpg.PostgresError):
        await remove_tenant(control, tenant.name)
    monkeypatch.undo()

    assert (await find_tenant(control, tenant.name)).status == "removing"
    for change in (
        resume_tenant(control, tenant.name, as_of=now),
        pause_tenant(control, tenant.name, as_of=now),
        rotate_webhook_url(control, tenant.name, grace=WEEK),
    ):
        with pytest.raises(RemovalUnfinished) as refused:
            await change
        assert f"tenants remove {tenant.name}" in refused.value.hint
    await remove_tenant(control, tenant.name)
    with pytest.raises(TenantNotFound):
        await find_tenant(control, tenant.name)


async def test_rotation_keeps_old_url_until_its_grace_ends(control, registry, provision_tenant):
    tenant, made = await provision_tenant()
    assert await registry.by_webhook_token(made.webhook_token) is not None

    rotated = await rotate_webhook_url(control, tenant.name, grace=timedelta(seconds=4))

    # The answer is cached before the grace ends, and the cache is valid for a minute.
    assert (await registry.by_webhook_token(made.webhook_token)).name == tenant.name
    assert (await registry.by_webhook_token(rotated.webhook_token)).name == tenant.name
    assert (await find_tenant(control, tenant.name)).previous_url_until == rotated.previous_until
    await until(lambda: is_unknown(registry, made.webhook_token))
    assert await control.fetchval("SELECT clock_timestamp()") >= rotated.previous_until - timedelta(milliseconds=50)
    assert (await registry.by_webhook_token(rotated.webhook_token)).name == tenant.name
    assert (await find_tenant(control, tenant.name)).previous_url_until is None


async def is_unknown(registry: Registry, token: str) -> bool:
    return await registry.by_webhook_token(token) is None


async def test_rotation_without_grace_refuses_old_url(control, registry, provision_tenant):
    tenant, made = await provision_tenant()
    assert await registry.by_webhook_token(made.webhook_token) is not None

    rotated = await rotate_webhook_url(control, tenant.name, grace=timedelta())

    await until(lambda: is_unknown(registry, made.webhook_token), seconds=5)
    assert (await registry.by_webhook_token(rotated.webhook_token)).name == tenant.name
    assert rotated.previous_until is None


async def test_second_rotation_drops_oldest_url(control, registry, provision_tenant):
    tenant, made = await provision_tenant()
    first = await rotate_webhook_url(control, tenant.name, grace=WEEK)
    assert await registry.by_webhook_token(made.webhook_token) is not None

    second = await rotate_webhook_url(control, tenant.name, grace=WEEK)

    await until(lambda: is_unknown(registry, made.webhook_token))
    for token in (first.webhook_token, second.webhook_token):
        assert (await registry.by_webhook_token(token)).name == tenant.name


async def test_lookups_of_tokens_and_keys_use_indexes(control, tenant):
    plan = "\n".join(
        row[0]
        for row in await control.fetch(
            "EXPLAIN SELECT tenant_id FROM control.tenants WHERE previous_token_hash = '\\x01' AND previous_token_until > clock_timestamp()"
        )
    )
    async with control.transaction():
        await control.execute("SET LOCAL enable_seqscan = off")
        indexed = await control.fetch("EXPLAIN SELECT tenant_id FROM control.tenants WHERE previous_token_hash = '\\x01'")

    assert plan
    assert "tenants_previous_token_hash_key" in "\n".join(row[0] for row in indexed)
