"""The registry answers from memory, forgets what changed, and asks once for all who wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from billingwatch.errors import DatabaseUnavailable, TenantNotFound
from billingwatch.tenancy import provision as provision_module
from billingwatch.tenancy import registry as registry_module
from billingwatch.tenancy.lanes import Lane
from billingwatch.tenancy.provision import add_secret, list_secrets, remove_secret
from billingwatch.tenancy.registry import Registry, _Key, load_tenant
from billingwatch.tenancy.sealing import Seal

ROLLED = "whsec_the_secret_after_the_roll"


class CountingLane(Lane):
    """Counts how often the registry asks."""

    asked = 0

    def hold(self):
        self.asked += 1
        return super().hold()


@pytest.fixture
async def lane(database) -> AsyncIterator[CountingLane]:
    lane = CountingLane(database, "tests registry")
    yield lane
    await lane.close()


@pytest.fixture
async def registry(lane, seal, database) -> AsyncIterator[Registry]:
    registry = Registry(lane, seal, database)
    yield registry
    await registry.close()


@pytest.fixture
async def following(registry) -> Registry:
    registry.start()
    await until(lambda: has_polled(registry))
    return registry


async def has_polled(registry: Registry) -> bool:
    return registry._generation > 0


async def until(found: Callable[[], Awaitable[object]], *, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not await found():
            await asyncio.sleep(0.01)


async def test_a_tenant_is_found_by_its_token_its_key_and_its_id(registry, provision_tenant):
    tenant, handed_out = await provision_tenant()

    found = [
        await registry.by_webhook_token(handed_out.webhook_token),
        await registry.by_api_key(handed_out.api_key),
        await registry.by_tenant_id(tenant.tenant_id),
    ]

    # Only deliveries need the secrets.
    assert found[0] == tenant
    assert [msgspec.structs.replace(each, api_key=None) for each in found[1:]] == [msgspec.structs.replace(tenant, secrets=())] * 2
    assert found[1].api_key.name == "default"


async def test_tokens_and_keys_do_not_open_each_others_doors(registry, provision_tenant):
    _, one = await provision_tenant("one")
    _, other = await provision_tenant("other")

    assert await registry.by_webhook_token(one.api_key) is None
    assert await registry.by_api_key(one.webhook_token) is None
    assert (await registry.by_webhook_token(other.webhook_token)).name == "other"
    assert (await registry.by_api_key(one.api_key)).name == "one"


async def test_an_unknown_token_belongs_to_nobody(registry, tenant):
    for token in ("", "x", "é", "\0", "a" * 10_000):
        assert await registry.by_webhook_token(token) is None
        assert await registry.by_api_key(token) is None


async def test_what_was_asked_before_is_answered_from_memory(registry, lane, provision_tenant):
    _, handed_out = await provision_tenant()
    await registry.by_webhook_token(handed_out.webhook_token)
    await registry.by_webhook_token("unknown")
    await lane.close()

    again = await registry.by_webhook_token(handed_out.webhook_token)

    assert again.name == "acme"
    assert await registry.by_webhook_token("unknown") is None


async def test_a_stampede_asks_once(registry, lane, provision_tenant):
    tenant, handed_out = await provision_tenant()

    found = await asyncio.gather(*(registry.by_webhook_token(handed_out.webhook_token) for _ in range(100)))

    assert found == [tenant] * 100
    assert lane.asked == 1


async def test_one_who_stops_waiting_takes_nothing_from_the_others(registry, lane, provision_tenant):
    tenant, handed_out = await provision_tenant()

    async with lane.hold():
        waiting = [asyncio.create_task(registry.by_webhook_token(handed_out.webhook_token)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
    done = await asyncio.gather(*waiting, return_exceptions=True)

    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1:] == [tenant, tenant]


async def test_a_database_that_is_away_is_said_and_not_remembered(registry, lane, database, provision_tenant):
    _, handed_out = await provision_tenant()
    await registry.by_webhook_token("unknown")

    async with lane.hold() as connection:
        asking = asyncio.gather(*(registry.by_webhook_token(handed_out.webhook_token) for _ in range(5)), return_exceptions=True)
        await asyncio.sleep(0)
        lane._dsn = "postgresql://nobody@127.0.0.1:1/nothing"
        connection.terminate()
    errors = await asking
    lane._dsn = database
    lane._failed_at = float("-inf")
    found = await registry.by_webhook_token(handed_out.webhook_token)

    assert {type(error) for error in errors} == {DatabaseUnavailable}
    assert found.name == "acme"


async def test_what_is_remembered_is_bounded(registry, tenant, monkeypatch):
    monkeypatch.setattr(registry_module, "CACHE_LIMIT", 3)
    await registry.by_tenant_id(tenant.tenant_id)

    for number in range(10):
        await registry.by_webhook_token(f"guess {number}")
        await registry.by_tenant_id(tenant.tenant_id)

    assert len(registry._answers) == 3
    assert _Key(tenant_id=tenant.tenant_id) in registry._answers


async def test_an_answer_grows_old(registry, lane, tenant, monkeypatch):
    await registry.by_tenant_id(tenant.tenant_id)
    monkeypatch.setattr(registry_module, "CACHE_SECONDS", 0)

    await registry.by_tenant_id(tenant.tenant_id)

    assert lane.asked == 2


async def test_an_answer_that_was_on_its_way_while_things_changed_is_not_kept(registry, lane, tenant):
    async with lane.hold():
        asking = asyncio.create_task(registry.by_tenant_id(tenant.tenant_id))
        await until(lambda: waiting(lane, 2))
        registry.forget(tenant.tenant_id)
    await asking

    assert registry._answers == {}


async def test_who_asks_after_a_change_does_not_get_an_answer_from_before_it(registry, lane, tenant):
    async with lane.hold():
        before = asyncio.create_task(registry.by_tenant_id(tenant.tenant_id))
        await until(lambda: waiting(lane, 2))
        registry.forget(tenant.tenant_id)
        after = [asyncio.create_task(registry.by_tenant_id(tenant.tenant_id)) for _ in range(3)]
        await until(lambda: queued(registry, 1))
    await asyncio.gather(before, *after)

    assert lane.asked == 3  # the hold above, and one question before and one after
    assert registry._asking == {}


async def waiting(lane: Lane, count: int) -> bool:
    return lane.waiting == count


async def queued(registry: Registry, count: int) -> bool:
    return len(registry._look_ups._waiting) == count


async def test_thousand_guesses_and_a_tenant_share_a_few_statements(registry, lane, provision_tenant):
    tenant, handed_out = await provision_tenant()
    async with lane.hold():
        guesses = [asyncio.create_task(registry.by_webhook_token(f"guess {number}")) for number in range(1000)]
        found = asyncio.create_task(registry.by_webhook_token(handed_out.webhook_token))
        await until(lambda: waiting(lane, 2))

    assert await found == tenant
    assert set(await asyncio.gather(*guesses)) == {None}
    assert lane.asked <= 13  # the hold above, and twelve statements


async def test_look_ups_of_every_kind_in_one_statement_find_their_tenants(registry, lane, provision_tenant):
    one, of_one = await provision_tenant("one")
    other, of_other = await provision_tenant("other")
    async with lane.hold():
        asked = [
            asyncio.create_task(each)
            for each in (
                registry.by_webhook_token(of_one.webhook_token),
                registry.by_api_key(of_other.api_key),
                registry.by_api_key(of_one.webhook_token),
                registry.by_tenant_id(other.tenant_id),
                registry.by_tenant_id(999),
            )
        ]
        await until(lambda: waiting(lane, 2))

    found = await asyncio.gather(*asked)

    assert [each and each.tenant_id for each in found] == [one.tenant_id, other.tenant_id, None, other.tenant_id, None]
    assert found[1].api_key.name == "default"
    assert found[3].api_key is None


async def test_a_secret_added_or_removed_elsewhere_is_seen_promptly(following, control, seal, provision_tenant):
    _, handed_out = await provision_tenant()
    old = (await following.by_webhook_token(handed_out.webhook_token)).secrets

    await add_secret(control, seal, "acme", ROLLED)
    await until(lambda: has_secrets(following, handed_out.webhook_token, (ROLLED, *old)))
    await remove_secret(control, "acme", (await list_secrets(control, "acme"))[0].secret_id)
    await until(lambda: has_secrets(following, handed_out.webhook_token, (ROLLED,)))

    assert len(old) == 1


async def has_secrets(registry: Registry, token: str, secrets: tuple[str, ...]) -> bool:
    return (await registry.by_webhook_token(token)).secrets == secrets


async def test_a_tenant_created_after_its_token_was_guessed_is_found_promptly(following, provision_tenant, monkeypatch):
    monkeypatch.setattr(provision_module, "new_webhook_token", lambda: "guessed")
    before = await following.by_webhook_token("guessed")

    tenant, _ = await provision_tenant()
    await until(lambda: following.by_webhook_token("guessed"))

    assert before is None
    assert await following.by_webhook_token("guessed") == tenant


async def test_a_change_of_one_tenant_leaves_the_others_remembered(following, lane, control, seal, provision_tenant):
    one, _ = await provision_tenant("one")
    other, _ = await provision_tenant("other")
    await following.changes.poll()  # both were announced when they were provisioned
    await following.by_tenant_id(one.tenant_id)
    await following.by_tenant_id(other.tenant_id)

    await add_secret(control, seal, "one", ROLLED)
    await until(lambda: forgotten(following, one.tenant_id))

    assert _Key(tenant_id=other.tenant_id) in following._answers


async def forgotten(registry: Registry, tenant_id: int) -> bool:
    return _Key(tenant_id=tenant_id) not in registry._answers


async def test_unknown_tokens_stay_cached_and_are_asked_again_after_a_change(registry, lane, tenant):
    for number in range(100):
        await registry.by_webhook_token(f"guess {number}")
    asked = lane.asked

    registry.forget(tenant.tenant_id)
    await registry.by_webhook_token("guess 7")

    assert len(registry._answers) == 100
    assert lane.asked == asked + 1


async def test_evicted_answers_leave_the_index_of_tenants(registry, tenant, monkeypatch):
    monkeypatch.setattr(registry_module, "CACHE_LIMIT", 1)

    await registry.by_tenant_id(tenant.tenant_id)
    await registry.by_webhook_token("guess")

    assert registry._keys == {}


async def test_secret_of_another_key_is_left_out(lane, database, provision_tenant):
    _, handed_out = await provision_tenant()
    registry = Registry(lane, Seal(["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]), database)

    found = await registry.by_webhook_token(handed_out.webhook_token)

    assert (found.secrets, found.unreadable_secrets) == ((), 1)


async def test_load_tenant_finds_by_name_or_says_that_there_is_none(control, seal, tenant):
    assert await load_tenant(control, seal, "acme") == tenant
    with pytest.raises(TenantNotFound, match="`other`"):
        await load_tenant(control, seal, "other")


async def test_a_tenant_does_not_show_its_secrets(tenant):
    shown = f"{tenant} {tenant!r} {[tenant]}"

    assert tenant.secrets
    assert not any(secret in shown for secret in tenant.secrets)
