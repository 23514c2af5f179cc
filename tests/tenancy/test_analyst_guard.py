"""The guard bounds an analyst from outside, in both isolations, as a superuser and as a role that may create roles."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from structlog.testing import capture_logs

from billingwatch.clock import utc_now
from billingwatch.postgres.connections import ControlConnection, open_connection
from billingwatch.service import Service
from billingwatch.settings import Settings
from billingwatch.tenancy import analyst_guard
from billingwatch.tenancy.analyst_guard import AnalystGuard
from billingwatch.tenancy.analysts import (
    AnalystCreated,
    analyst_dsn,
    create_analyst,
    list_analysts,
    revoke_analyst,
    rotate_analyst,
    scram_verifier,
)
from billingwatch.tenancy.isolation import Isolation
from billingwatch.tenancy.migrate import ensure_control_plane
from billingwatch.tenancy.provision import provision
from billingwatch.tenancy.sealing import Seal
from billingwatch.tenancy.tenants import Tenant
from billingwatch.worker import processing

pytestmark = pytest.mark.both_isolations

CHANGES = (
    "ALTER ROLE CURRENT_USER SET statement_timeout = 0",
    "ALTER ROLE CURRENT_USER SET search_path = pg_catalog",
    "ALTER ROLE CURRENT_USER RESET ALL",
    "ALTER ROLE CURRENT_USER SET work_mem = '1GB'",
    "DO $$ BEGIN EXECUTE format('ALTER ROLE CURRENT_USER IN DATABASE %I SET statement_timeout = 0', current_database()); END $$",
)
HOUR, NOW = timedelta(hours=1), timedelta(0)
ENDED = (
    asyncpg.AdminShutdownError,
    asyncpg.InterfaceError,
    asyncpg.ConnectionDoesNotExistError,
    ConnectionError,
)


class Installation:
    """A database with tenant acme, its analyst, and the service's DSN."""

    def __init__(self, dsn: str, control: ControlConnection, analyst: AnalystCreated) -> None:
        self.dsn = dsn
        self.control = control
        self.analyst = analyst

    def guard(self, *, transaction: timedelta = HOUR, idle: timedelta = HOUR) -> AnalystGuard:
        return AnalystGuard(self.dsn, transaction_limit=transaction, idle_limit=idle)

    async def connect(self, password: str | None = None) -> asyncpg.Connection:
        return await asyncpg.connect(analyst_dsn(self.dsn, self.analyst.role, password or self.analyst.password))


@pytest.fixture(params=["superuser", "plain role"])
async def service(request: pytest.FixtureRequest, database: str) -> AsyncIterator[str]:
    """DSN of a service whose role is a superuser, or may create roles and schemas and no more."""
    if request.param == "superuser":
        yield database
        return
    admin = await asyncpg.connect(database)
    name = f"service_{uuid.uuid4().hex[:12]}"
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy")
    await admin.execute(f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD '{scram_verifier(name, os.urandom(16))}'")
    await admin.execute(f"GRANT CREATE ON DATABASE {name} TO {name}")
    there = urlsplit(database)._replace(path=f"/{name}").geturl()
    yield analyst_dsn(there, name, name)
    other = await asyncpg.connect(there)
    shared = await other.fetchval("SELECT schema_name FROM control.isolation")
    await other.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    for role in [f"{shared}{suffix}" for suffix in ("", "_recorder", "_analysts", "_reader") if shared] + [name]:
        await admin.execute(f"DROP ROLE {role}")
    await admin.close()


@pytest.fixture
async def acme(service: str, isolation: Isolation, seal: Seal) -> AsyncIterator[Installation]:
    control = ControlConnection(await open_connection(service, "tests service"))
    await ensure_control_plane(control, isolation=isolation)
    await provision(control, seal, "acme")
    made = await create_analyst(control, "acme")
    yield Installation(service, control, made)
    for analyst in await list_analysts(control):
        await revoke_analyst(control, analyst.role)
    await control.close()


async def has_ended(session: asyncpg.Connection) -> bool:
    async with asyncio.timeout(30):
        while not session.is_closed():
            await asyncio.sleep(0.01)
    return True


async def test_old_transaction_of_an_analyst_is_ended_with_a_log_line(acme: Installation) -> None:
    session = await acme.connect()
    await session.execute("SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0")
    await session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")

    with capture_logs() as logs:
        assert await acme.guard(transaction=NOW).check()

    assert await has_ended(session)
    [line] = [entry for entry in logs if entry["event"] == "analysts.session_ended"]
    assert (line["role"], line["reason"]) == (acme.analyst.role, "transaction")


async def test_running_statement_without_timeout_is_ended(acme: Installation) -> None:
    session = await acme.connect()
    await session.execute(
        "SET statement_timeout = 0; SET transaction_timeout = 0" if await modern(session) else "SET statement_timeout = 0"
    )
    sleeping = asyncio.ensure_future(session.execute("SELECT pg_sleep(600)"))
    watching = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND wait_event = 'PgSleep'"
    async with asyncio.timeout(30):
        while not await acme.control.fetchval(watching, acme.analyst.role):
            await asyncio.sleep(0.01)

    await acme.guard(transaction=NOW).check()

    with pytest.raises(ENDED):
        await asyncio.wait_for(sleeping, 30)


async def modern(session: asyncpg.Connection) -> bool:
    return session.get_server_version().major >= 17


async def test_session_that_stops_writers_is_ended(acme: Installation, database: str) -> None:
    admin = await asyncpg.connect(urlsplit(acme.dsn)._replace(netloc=urlsplit(database).netloc, query=urlsplit(database).query).geturl())
    await admin.execute("DROP EVENT TRIGGER IF EXISTS billingwatch_analysts")
    reader, session = await acme.connect(), await acme.connect()
    await reader.execute("BEGIN; SELECT FROM events")
    await session.execute("SET default_transaction_read_only = off; SET statement_timeout = 0")
    rule = asyncio.create_task(session.execute("CREATE RULE r AS ON INSERT TO events DO INSTEAD NOTHING"))
    async with asyncio.timeout(10):
        while not await admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = $1", session.get_server_pid()):
            await asyncio.sleep(0.01)

    with capture_logs() as logs:
        assert await acme.guard().check()

    assert await has_ended(session)
    with pytest.raises(ENDED):
        await rule
    assert [line["reason"] for line in logs if line["event"] == "analysts.session_ended"] == ["lock"]
    assert await reader.fetchval("SELECT 1") == 1
    # A guard that may do so also closes what let the session wait for the lock.
    may = await acme.control.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    assert await admin.fetchval("SELECT count(*) FROM pg_event_trigger WHERE evtname = 'billingwatch_analysts'") == int(may)
    await admin.close()


async def test_idle_session_is_ended_and_a_young_one_stays(acme: Installation) -> None:
    session = await acme.connect()
    await session.fetch("SELECT 1")

    await acme.guard().check()
    young = session.is_closed()
    await acme.guard(idle=NOW).check()

    assert not young
    assert await has_ended(session)


async def test_sessions_of_others_are_never_ended(acme: Installation) -> None:
    stranger = await open_connection(acme.dsn, "tests stranger")
    await stranger.execute("BEGIN; SELECT 1")

    await acme.guard(transaction=NOW, idle=NOW).check()

    assert await stranger.fetchval("SELECT 1") == 1
    assert await acme.control.fetchval("SELECT 1") == 1
    await stranger.close()


async def test_queue_is_vacuumed_after_the_guard_ended_a_snapshot(acme: Installation) -> None:
    """Deleted rows of the queue stay as long as any snapshot could see them."""
    session = await acme.connect()
    await session.execute("SET idle_in_transaction_session_timeout = 0")
    await session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    await acme.control.execute(
        "INSERT INTO control.pending_events (tenant_id, event_id, received_at)"
        " SELECT 1, 'evt_' || n, now() FROM generate_series(1, 1000) AS n"
    )
    await acme.control.execute("DELETE FROM control.pending_events")
    await acme.control.execute("VACUUM control.pending_events")
    held = await acme.control.fetchval("SELECT pg_relation_size('control.pending_events')")

    await acme.guard(transaction=NOW).check()
    assert await has_ended(session)
    async with asyncio.timeout(30):
        while await acme.control.fetchval("SELECT pg_relation_size('control.pending_events')"):
            await acme.control.execute("VACUUM control.pending_events")

    assert held > 0


async def test_password_that_an_analyst_changed_is_restored(acme: Installation) -> None:
    for password in ("''", "NULL", "'weak'"):
        session = await acme.connect()
        await session.execute("SET default_transaction_read_only = off")
        await session.execute(f"ALTER ROLE CURRENT_USER PASSWORD {password}")
        await session.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await acme.connect()

        await acme.guard().check()

        again = await acme.connect()
        assert await again.fetchval("SELECT current_user") == acme.analyst.role
        await again.close()


async def test_passwords_are_not_rewritten_at_each_check(acme: Installation, database: str) -> None:
    """A superuser compares first; another role may not, and writes every `PASSWORD_SECONDS`."""
    admin = await asyncpg.connect(database)
    row = "SELECT xmin::text FROM pg_authid WHERE rolname = $1"
    guard = acme.guard()
    await guard.check()
    before = await admin.fetchval(row, acme.analyst.role)

    await guard.check()

    assert await admin.fetchval(row, acme.analyst.role) == before
    await admin.close()


async def test_defaults_that_an_analyst_changed_are_restored(acme: Installation, database: str) -> None:
    admin = await asyncpg.connect(database)
    stored = "SELECT setdatabase, setconfig FROM pg_db_role_setting WHERE setrole = to_regrole($1) ORDER BY setdatabase"
    before = await admin.fetch(stored, acme.analyst.role)
    for change in CHANGES:
        session = await acme.connect()
        await session.execute("SET default_transaction_read_only = off")
        await session.execute(change)
        await session.close()
        assert await admin.fetch(stored, acme.analyst.role) != before, change

        with capture_logs() as logs:
            await acme.guard().check()
            await acme.guard().check()

        [found] = await admin.fetch(stored, acme.analyst.role)
        assert (found["setdatabase"], set(found["setconfig"])) == (0, set(before[0]["setconfig"])), change
        assert [entry["event"] for entry in logs] == ["analysts.settings_restored"]
    await admin.close()


async def test_an_analyst_cannot_change_the_limits_of_its_role(acme: Installation) -> None:
    session = await acme.connect()
    await session.execute("SET default_transaction_read_only = off")

    for change in (
        "VALID UNTIL 'infinity'",
        "CONNECTION LIMIT -1",
        "SUPERUSER",
        "CREATEROLE",
        "REPLICATION",
        "BYPASSRLS",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await session.execute(f"ALTER ROLE CURRENT_USER {change}")
    await session.close()


async def test_check_is_skipped_while_another_process_is_at_it(acme: Installation) -> None:
    other = await open_connection(acme.dsn, "tests other")

    async with other.transaction():
        await other.fetchval(analyst_guard.sql["claim"])
        skipped = await acme.guard().check()
    done = await acme.guard().check()
    await other.close()

    assert (skipped, done) == (False, True)


async def test_guard_runs_by_itself_and_survives_a_database_that_is_away(acme: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyst_guard, "CHECK_SECONDS", 0.05)
    guard = AnalystGuard("postgresql://nobody@127.0.0.1:1/nothing", transaction_limit=HOUR, idle_limit=NOW)
    session = await acme.connect()
    with capture_logs() as logs:
        guard.start()
        async with asyncio.timeout(30):
            while not logs:
                await asyncio.sleep(0.01)

    guard._dsn = acme.dsn

    assert await has_ended(session)
    assert guard.task.restarts == 0
    await guard.close()


async def test_rotated_password_replaces_the_old_one_and_ends_sessions(acme: Installation) -> None:
    session = await acme.connect()

    made = await rotate_analyst(acme.control, acme.analyst.role)
    await acme.guard().check()

    assert await has_ended(session)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await acme.connect()
    again = await acme.connect(made.password)
    assert (made.role, made.schema_name) == (acme.analyst.role, acme.analyst.schema_name)
    await again.close()


@pytest.mark.parametrize("shut_out", [rotate_analyst, revoke_analyst])
async def test_analyst_who_locks_its_own_role_is_shut_out_at_once(
    acme: Installation, shut_out: Callable[[ControlConnection, str], Awaitable[object]]
) -> None:
    session = await acme.connect()
    await session.execute("SET default_transaction_read_only = off; SET idle_in_transaction_session_timeout = 0")
    await session.execute("BEGIN; ALTER ROLE CURRENT_USER SET work_mem = '1MB'; ALTER ROLE CURRENT_USER PASSWORD 'mine'")

    async with asyncio.timeout(10):
        await shut_out(acme.control, acme.analyst.role)

    assert await has_ended(session)
    with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
        await acme.connect()


async def test_other_sessions_show_an_analyst_no_name_of_a_tenant(acme: Installation, open_lane: Callable[..., Any]) -> None:
    """`application_name` is visible to every role, in contrast to the text of statements."""
    session = await acme.connect()

    seen = await session.fetch("SELECT application_name, query FROM pg_stat_activity WHERE usename <> current_user")

    assert seen
    assert {row["query"] for row in seen} <= {"<insufficient privilege>", None, ""}
    assert not any("acme" in (row["application_name"] or "") for row in seen)
    await session.close()


@pytest.mark.parametrize("kind", ["service", "worker"])
async def test_processes_that_process_events_run_the_guard(
    kind: str, settings: Settings, database: str, control: ControlConnection, tenant: Tenant
) -> None:
    made = await create_analyst(control, "acme")
    await control.execute(f"ALTER ROLE {made.role} SET work_mem = '1GB'")
    restored = "SELECT NOT 'work_mem=1GB' = ANY (setconfig) FROM pg_db_role_setting WHERE setrole = to_regrole($1)"

    async with processing(settings, database, utc_now) if kind == "worker" else running(settings, database):
        async with asyncio.timeout(30):
            while not await control.fetchval(restored, made.role):
                await asyncio.sleep(0.01)

    await revoke_analyst(control, made.role)


@asynccontextmanager
async def running(settings: Settings, dsn: str) -> AsyncIterator[None]:
    service = Service(settings, dsn)
    await service.start()
    try:
        yield
    finally:
        await service.close()
