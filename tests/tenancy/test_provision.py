"""Provisioning: everything a tenant needs, or nothing at all; and nothing that tells its name or its keys."""

from __future__ import annotations

import asyncio
import base64
import re

import asyncpg
import pytest

from billingwatch.errors import SecretInvalid, TenantNameInvalid, TenantNameTaken, TenantNotFound
from billingwatch.postgres import migrations
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.tenant_plane import metadata
from billingwatch.tenancy import provision as provision_module
from billingwatch.tenancy.isolation import checked_schema_name, new_schema_name
from billingwatch.tenancy.provision import find_tenant, list_tenants, provision
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.tenants import TOKEN_BYTES, new_api_key, new_webhook_token, token_hash

NAME = "unmistakable-name"
SIGNING = "whsec_unmistakable_signing_secret"


async def schemas(control: ControlConnection) -> set[str]:
    rows = await control.fetch("SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'")
    return {row["nspname"] for row in rows} - {"public", "control"}


async def everything_in(control: ControlConnection, schema: str) -> str:
    """Every column of every row of every table of a schema as text, bytes also as they read."""
    tables = await control.fetch(
        "SELECT relname::text FROM pg_class WHERE relnamespace = $1::text::regnamespace AND relkind IN ('r', 'p', 'v')", schema
    )
    found = []
    for table in tables:
        for row in await control.fetch(f"SELECT * FROM {schema}.{table['relname']}"):
            found += [value.decode("latin-1") + value.hex() if isinstance(value, bytes) else str(value) for value in row.values()]
    return "\n".join(found)


async def assert_nothing_was_left(control: ControlConnection) -> None:
    assert await schemas(control) == set()
    for table in ("tenants", "signing_secrets", "api_keys", "pending_events"):
        assert await control.fetchval(f"SELECT count(*) FROM control.{table}") == 0
    assert not control.is_in_transaction()
    assert await control.fetchval("SHOW search_path") == "pg_catalog"


async def test_a_tenant_gets_a_row_a_schema_its_tables_and_its_views(control, seal):
    provisioned = await provision(control, seal, "acme", mode="test", secrets=[SIGNING], rate_limit=7)

    row = await find_tenant(control, "acme")
    assert (row.tenant_id, row.name, row.schema_name, row.mode, row.status, row.rate_limit, row.secrets, row.pending, row.dead_letters) == (
        provisioned.tenant_id,
        "acme",
        provisioned.schema_name,
        "test",
        "active",
        7,
        1,
        0,
        0,
    )
    assert (row.revision, row.views_digest) == (migrations.head("tenant"), migrations.views_digest())
    assert await schemas(control) == {provisioned.schema_name}
    relations = await control.fetch(
        "SELECT relname::text, relkind::text FROM pg_class WHERE relnamespace = $1::text::regnamespace AND relkind IN ('r', 'v')",
        row.schema_name,
    )
    assert {row["relname"] for row in relations if row["relkind"] == "r"} == set(metadata.tables)
    assert {row["relname"] for row in relations if row["relkind"] == "v"} == set(migrations.views())


@pytest.mark.schema_isolation
async def test_token_key_and_schema_name_are_random_and_long_enough(control, seal):
    one = await provision(control, seal, "one")
    other = await provision(control, seal, "other")

    assert TOKEN_BYTES * 8 >= 192
    assert (
        len(base64.urlsafe_b64decode(one.webhook_token + "="))
        == len(base64.urlsafe_b64decode(one.api_key.removeprefix("bw_") + "="))
        == TOKEN_BYTES
    )
    assert len({one.webhook_token, other.webhook_token, one.api_key, other.api_key}) == 4
    assert one.schema_name != other.schema_name
    assert all(checked_schema_name(new_schema_name()) for _ in range(100))
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", new_webhook_token())
    assert re.fullmatch(r"bw_[A-Za-z0-9_-]{43}", new_api_key())


async def test_no_token_key_or_secret_is_stored_in_clear(control, seal):
    provisioned = await provision(control, seal, NAME, secrets=[SIGNING])

    stored = await everything_in(control, "control")

    assert NAME in stored
    assert token_hash(provisioned.webhook_token).hex() in stored
    assert token_hash(provisioned.api_key).hex() in stored
    for clear in (provisioned.webhook_token, provisioned.api_key, SIGNING):
        assert clear not in stored
        assert clear.encode().hex() not in stored
        assert base64.b64encode(clear.encode()).decode().rstrip("=") not in stored
    # Of the key its first characters are kept, to tell keys apart; most of its entropy is not.
    hint = await control.fetchval("SELECT hint FROM control.api_keys")
    assert provisioned.api_key.startswith(hint)
    assert (len(provisioned.api_key) - len(hint)) * 6 >= 192


async def test_the_catalogs_that_every_role_can_read_do_not_know_the_tenants_name(control, seal, connect):
    await provision(control, seal, NAME, secrets=[SIGNING])
    connection = await connect()

    catalogs = await connection.fetch(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r'"
    )
    told = []
    for catalog in catalogs:
        if catalog["relname"] not in {
            "pg_authid",
            "pg_statistic",
            "pg_largeobject",
            "pg_user_mapping",
            "pg_subscription",
            "pg_statistic_ext_data",
        }:
            told += [str(row) for row in await connection.fetch(f"SELECT c::text FROM pg_catalog.{catalog['relname']} AS c")]

    assert len(told) > 1000
    assert [row for row in told if NAME in row] == []


async def test_a_taken_name_is_refused_and_nothing_is_left(control, seal):
    first = await provision(control, seal, "acme")

    with pytest.raises(TenantNameTaken, match="`acme` exists already") as refused:
        await provision(control, seal, "acme", secrets=[SIGNING])

    assert "tenants show acme" in refused.value.hint
    assert await schemas(control) == {first.schema_name}
    assert await control.fetchval("SELECT count(*) FROM control.signing_secrets") == 0
    assert await control.fetchval("SELECT count(*) FROM control.api_keys") == 1


async def test_a_bad_name_is_refused_before_anything_is_asked(control, seal):
    sent: list[str] = []
    control.add_query_logger(lambda query: sent.append(query.query))

    for name in ("", " ", "a b", "-a", "_a", "a.b", "a/b", "é", "a\n", "a\0", "a" * 64, "x'; DROP SCHEMA control; --", "\u0661", "../a"):
        with pytest.raises(TenantNameInvalid):
            await provision(control, seal, name)

    assert sent == []


async def test_a_plain_name_is_accepted(control, seal):
    names = {"a", "A", "0", "a-b_c", "a" * 63, "select", "public", "control", "NULL"}

    for name in names:
        await provision(control, seal, name)

    assert {row.name for row in await list_tenants(control)} == names


@pytest.mark.schema_isolation
async def test_a_bad_secret_is_refused_before_anything_is_left(control, seal):
    for secret in ("", "whsec_", "whsec_short", "sk_live_0123456789", "whsec_with a space", "whsec_" + "a" * 251, "whsec_naïve_secret"):
        with pytest.raises(SecretInvalid) as refused:
            await provision(control, seal, "acme", secrets=[SIGNING, secret])
        assert len(secret) < 10 or secret not in str(refused.value)

    await assert_nothing_was_left(control)


@pytest.mark.schema_isolation
@pytest.mark.parametrize("broken", ["SELECT 1 / 0", "CREATE VIEW v AS SELECT nothing FROM nowhere", "not SQL"])
async def test_a_failure_in_the_last_step_leaves_nothing(control, seal, monkeypatch, broken):
    monkeypatch.setattr(migrations, "render_views", lambda: broken)

    with pytest.raises(asyncpg.PostgresError):
        await provision(control, seal, "acme", secrets=[SIGNING])

    await assert_nothing_was_left(control)


@pytest.mark.schema_isolation
async def test_a_schema_name_that_is_taken_leaves_nothing_and_is_not_called_a_taken_name(control, seal, monkeypatch):
    first = await provision(control, seal, "one")
    monkeypatch.setattr(provision_module, "new_schema_name", lambda: first.schema_name)

    with pytest.raises(asyncpg.UniqueViolationError):
        await provision(control, seal, "other")

    assert [row.name for row in await list_tenants(control)] == ["one"]
    assert await schemas(control) == {first.schema_name}


@pytest.mark.schema_isolation
async def test_a_cancelled_provisioning_leaves_nothing(control, seal, connect):
    blocker = await connect()
    await blocker.execute("BEGIN; LOCK TABLE control.api_keys")

    task = asyncio.create_task(provision(control, seal, "acme", secrets=[SIGNING]))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await blocker.execute("ROLLBACK")

    await assert_nothing_was_left(control)


@pytest.mark.schema_isolation
async def test_a_connection_that_dies_while_provisioning_leaves_nothing(control, seal, connect):
    blocker, dying = await connect(), ControlConnection(await connect())
    await blocker.execute("BEGIN; LOCK TABLE control.api_keys")

    task = asyncio.create_task(provision(dying, seal, "acme", secrets=[SIGNING]))
    await asyncio.sleep(0.1)
    await control.execute("SELECT pg_terminate_backend($1)", dying.get_server_pid())
    done = await asyncio.gather(task, return_exceptions=True)
    await blocker.execute("ROLLBACK")

    assert isinstance(done[0], Exception)
    await assert_nothing_was_left(control)


async def test_ten_tenants_are_provisioned_at_once(seal, connect, control):
    connections = [ControlConnection(await connect()) for _ in range(10)]

    provisioned = await asyncio.gather(*(provision(connection, seal, f"tenant-{number}") for number, connection in enumerate(connections)))

    assert [row.name for row in await list_tenants(control)] == [f"tenant-{number}" for number in range(10)]
    assert await schemas(control) == {one.schema_name for one in provisioned}
    for one in provisioned:
        async with tenant_scope(control, one) as scoped:
            assert await scoped.fetchval("SELECT count(*) FROM events") == 0


async def test_of_ten_who_want_one_name_at_once_one_gets_it(seal, connect, control):
    connections = [ControlConnection(await connect()) for _ in range(10)]

    done = await asyncio.gather(*(provision(connection, seal, "acme") for connection in connections), return_exceptions=True)

    (winner,) = [one for one in done if not isinstance(one, BaseException)]
    assert {type(one) for one in done if isinstance(one, BaseException)} == {TenantNameTaken}
    assert await schemas(control) == {winner.schema_name}


async def test_provisioning_leaves_no_path_on_its_connection(control, seal):
    await provision(control, seal, "acme")

    assert await control.fetchval("SHOW search_path") == "pg_catalog"
    with pytest.raises(asyncpg.UndefinedTableError, match='relation "events" does not exist'):
        await control.fetch("SELECT event_id FROM events")


async def test_tenants_are_listed_by_name_and_a_missing_one_is_said(control, seal):
    for name in ("zoe", "ada", "bob"):
        await provision(control, seal, name)

    assert [row.name for row in await list_tenants(control)] == ["ada", "bob", "zoe"]
    with pytest.raises(TenantNotFound, match="there is no tenant `eve`") as missing:
        await find_tenant(control, "eve")
    assert missing.value.hint == "run `billingwatch tenants list`"
