"""API keys: names, scopes, ends, limits, and their last use."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from billingwatch.errors import ApiKeyNameInvalid, ApiKeyNameTaken, ApiKeyNotFound, ApiKeysFull, DatabaseUnavailable, TenantNotFound
from billingwatch.tenancy.key_use import KeyUse
from billingwatch.tenancy.keys import KEYS_LIMIT, create_key, list_keys, revoke_key
from billingwatch.tenancy.lanes import Lane
from billingwatch.tenancy.registry import Registry


async def test_provisioning_makes_one_key_named_default(control, tenant):
    [key] = await list_keys(control, tenant.name)

    assert (key.name, key.scope, key.expires_at, key.expired, key.last_used_at) == ("default", "write", None, False, None)


async def test_created_key_opens_its_tenant_only(control, seal, database, provision_tenant, open_lane):
    await provision_tenant("one")
    await provision_tenant("other")
    made = await create_key(control, "one", "dashboard", scope="read")

    found = await Registry(open_lane(), seal, database).by_api_key(made.api_key)

    assert found.name == "one"
    assert (found.api_key.key_id, found.api_key.name, found.api_key.scope) == (made.key_id, "dashboard", "read")
    assert found.secrets == ()
    assert made.api_key not in str(await control.fetch("SELECT * FROM control.api_keys"))


async def test_expired_key_is_unknown_although_answer_was_cached(control, seal, database, tenant, open_lane):
    registry = Registry(open_lane(), seal, database)
    made = await create_key(control, tenant.name, "short", expires_in=timedelta(seconds=3))
    assert (await registry.by_api_key(made.api_key)).name == tenant.name

    async with asyncio.timeout(15):
        while await registry.by_api_key(made.api_key) is not None:
            await asyncio.sleep(0.02)

    assert [key.expired for key in await list_keys(control, tenant.name)] == [False, True]


async def test_names_are_unique_until_their_key_is_revoked(control, tenant):
    made = await create_key(control, tenant.name, "grafana")

    with pytest.raises(ApiKeyNameTaken) as taken:
        await create_key(control, tenant.name, "Grafana")
    revoked = await revoke_key(control, tenant.name, made.key_id)
    again = await create_key(control, tenant.name, "grafana")

    assert f"keys revoke {tenant.name} {made.key_id}" in taken.value.hint
    assert (revoked.key_id, revoked.name) == (made.key_id, "grafana")
    assert again.key_id != made.key_id


@pytest.mark.parametrize("name", ["", " ", "operator", "Operator", "bw_abcd", "a\nb", "a" * 64, "-a", "ä", "a "])
async def test_name_that_could_mislead_is_refused(control, tenant, name):
    with pytest.raises(ApiKeyNameInvalid):
        await create_key(control, tenant.name, name)


async def test_number_of_keys_is_bounded(control, tenant):
    for number in range(KEYS_LIMIT - 1):
        await create_key(control, tenant.name, f"key {number}")

    with pytest.raises(ApiKeysFull):
        await create_key(control, tenant.name, "one more")


async def test_key_of_another_tenant_cannot_be_revoked(control, provision_tenant):
    await provision_tenant("one")
    await provision_tenant("other")
    [key] = await list_keys(control, "other")

    with pytest.raises(ApiKeyNotFound):
        await revoke_key(control, "one", key.key_id)
    with pytest.raises(TenantNotFound):
        await list_keys(control, "nobody")
    assert await list_keys(control, "other") == [key]


async def test_last_use_is_written_to_the_minute(control, tenant, open_lane):
    times = [datetime(2026, 3, 1, 12, 0, 59, tzinfo=UTC)]
    use = KeyUse(open_lane(), lambda: times[-1])
    [key] = await list_keys(control, tenant.name)

    use.add(key.key_id)
    use.add(987_654)  # revoked since
    await use.flush()
    use.add(key.key_id)

    [used] = await list_keys(control, tenant.name)
    assert used.last_used_at == datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    assert use._unwritten == {}
    times.append(datetime(2026, 3, 1, 11, 0, tzinfo=UTC))
    use.add(key.key_id)
    await use.flush()
    assert (await list_keys(control, tenant.name))[0].last_used_at == used.last_used_at


async def test_last_use_does_not_wait_for_locked_key(control, connect, tenant, open_lane, now):
    use = KeyUse(open_lane(), lambda: now)
    [key] = await list_keys(control, tenant.name)
    other = await connect()

    async with other.transaction():
        await other.execute("SELECT FROM control.api_keys WHERE key_id = $1 FOR UPDATE", key.key_id)
        use.add(key.key_id)
        async with asyncio.timeout(10):
            await use.flush()

    assert (await list_keys(control, tenant.name))[0].last_used_at is None


async def test_last_use_stays_noted_while_the_database_is_away(tenant, control, now):
    use = KeyUse(Lane("postgresql://nobody@127.0.0.1:1/none", "tests"), lambda: now)
    [key] = await list_keys(control, tenant.name)
    use.add(key.key_id)

    with pytest.raises(DatabaseUnavailable):
        await use.flush()

    assert list(use._unwritten) == [key.key_id]
