"""`billingwatch migrate` as an operator runs it, and as a machine kills it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from billingwatch.clock import utc_now
from billingwatch.postgres import migrations
from billingwatch.settings import Settings
from billingwatch.tenancy.keys import create_key
from billingwatch.tenancy.lifecycle import pause_tenant
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.tenants import Scope

pytestmark = pytest.mark.schema_isolation  # but for what says otherwise

# The command as the next release would run it.
NEXT_RELEASE = """
import sys
from pathlib import Path
from billingwatch.cli import main
from billingwatch.postgres import revisions
with revisions.schema_at(Path(sys.argv.pop(1))):
    main()
"""
BEFORE = migrations.head("tenant")
ADD = "ALTER TABLE customers ADD COLUMN nickname text"
DROP = "ALTER TABLE customers DROP COLUMN nickname"


class Command:
    """`billingwatch migrate` of the next release, on the test's database."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self._root = root
        self._environ = {
            **os.environ,
            "BILLINGWATCH_DATABASE_URL": settings.database_url or "",
            "BILLINGWATCH_SECRET_KEY": settings.secret_key or "",
        }

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-c", NEXT_RELEASE, str(self._root), "migrate", *arguments]
        return subprocess.Popen(command, env={**self._environ, **environ}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        said, talk = process.communicate(timeout=100)
        return process.returncode, said, talk

    async def run(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        return await asyncio.to_thread(lambda: self.finish(self.start(*arguments, **environ)))

    async def json(self, *arguments: str, **environ: str) -> tuple[int, Any]:
        code, said, _ = await self.run(*arguments, "--json", **environ)
        return code, json.loads(said)


@pytest.fixture
def command(release: Any, settings: Settings) -> Command:
    return Command(release.root, settings)


@pytest.fixture
async def trio(provision_tenant: Any) -> dict[str, Any]:
    return {name: (await provision_tenant(name))[0] for name in ("first", "second", "third")}


async def migrated(control: Any, revision: str) -> int:
    count: int = await control.fetchval("SELECT count(*) FROM control.tenants WHERE revision = $1", revision)
    return count


async def with_column(control: Any) -> set[str]:
    rows = await control.fetch("SELECT table_schema FROM information_schema.columns WHERE column_name = 'nickname'")
    return {row["table_schema"] for row in rows}


async def test_a_run_that_is_killed_leaves_whole_tenants_and_the_next_one_goes_on_there(
    control: Any, release: Any, provision_tenant: Any, command: Command
) -> None:
    tenants = [(await provision_tenant(f"tenant-{number}"))[0] for number in range(24)]
    revision = release.add("tenant", f"SELECT pg_sleep(0.05); {ADD}; SELECT pg_sleep(0.05)")
    process = command.start("--jobs", "3")
    while await migrated(control, revision) < 5:
        assert process.poll() is None, process.communicate()
        await asyncio.sleep(0.005)

    process.send_signal(signal.SIGKILL)
    process.communicate()
    while await control.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'billingwatch migrate%'"):
        await asyncio.sleep(0.01)
    at_revision = {
        row["schema_name"] for row in await control.fetch("SELECT schema_name FROM control.tenants WHERE revision = $1", revision)
    }
    changed = await with_column(control)
    code, resumed = await command.json("--jobs", "3")

    assert 5 <= len(at_revision) < len(tenants)
    assert changed == at_revision
    assert (code, resumed["migrated"], resumed["failed"]) == (0, len(tenants) - len(at_revision), 0)
    assert await with_column(control) == {tenant.schema_name for tenant in tenants}


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["terminal", "background"])
def started_from(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a shell starts in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


async def test_an_interrupted_run_leaves_whole_tenants_and_says_nothing_of_python(
    control: Any, release: Any, trio: Any, command: Command, started_from: None
) -> None:
    revision = release.add("tenant", f"{ADD}; SELECT pg_sleep(1.5)")
    process = command.start("--jobs", "1")
    while not await migrated(control, revision):
        assert process.poll() is None, process.communicate()
        await asyncio.sleep(0.005)

    process.send_signal(signal.SIGTERM)
    _, talk = process.communicate(timeout=30)

    assert process.returncode == 1
    assert "Traceback" not in talk
    assert "Aborted" in talk
    assert len(await with_column(control)) == await migrated(control, revision)


async def test_a_second_run_is_refused_with_a_hint(control: Any, connect: Any, release: Any, trio: Any, command: Command) -> None:
    release.add("tenant", f"SELECT pg_sleep(3); {ADD}")
    process = command.start()
    # The server is shared with other tests.
    here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    running = f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1112099156 AND {here}"
    while not await control.fetchval(running):
        assert process.poll() is None, process.communicate()
        await asyncio.sleep(0.01)

    code, said, talk = await command.run()
    first = await asyncio.to_thread(command.finish, process)

    assert (code, said) == (2, "")
    assert "error: another `billingwatch migrate` is at work on this database" in talk
    assert "hint: wait until it has ended" in talk
    assert first[0] == 0


async def test_what_was_done_is_told_to_people_on_stderr_and_to_programs_on_stdout(
    control: Any, release: Any, trio: Any, command: Command
) -> None:
    await control.execute(f"ALTER TABLE {trio['second'].schema_name}.customers ADD COLUMN nickname text")
    revision = release.add("tenant", ADD, back=DROP)

    code, said, talk = await command.run()
    again, report = await command.json()

    assert (code, said, again) == (1, "", 1)
    assert "2 tenants migrated, 1 failed, in" in talk
    assert 'second: column "nickname" of relation "customers" already exists' in talk
    assert "hint: mend the cause and run it again" in talk
    assert (report["migrated"], report["failed"], report["not_tried"], report["stopped_by"]) == (0, 1, 0, "canary")
    assert [(each["name"], each["from_revision"], each["to_revision"]) for each in report["tenants"]] == [("second", BEFORE, revision)]


async def test_one_tenant_is_told_of_as_one_and_a_dry_run_says_why_it_failed(
    control: Any, release: Any, trio: Any, command: Command
) -> None:
    await control.execute(f"ALTER TABLE {trio['second'].schema_name}.customers ADD COLUMN nickname text")
    release.add("tenant", ADD, back=DROP)

    _, _, talk = await command.run("--tenant", "first")
    failed, _, _ = await command.run("--tenant", "second")
    _, _, plan = await command.run("--dry-run")

    assert "1 tenant migrated, 0 failed, in" in talk
    assert failed == 1
    assert 'second failed the last time: column "nickname" of relation "customers" already exists' in plan


@pytest.mark.row_isolation
async def test_tenants_that_share_their_tables_are_told_of_together(control: Any, release: Any, trio: Any, command: Command) -> None:
    revision = release.add("tenant", ADD, back=DROP)

    some, _, refused = await command.run("--dry-run", "--tenant", "first", BILLINGWATCH_ISOLATION="row")
    code, _, talk = await command.run(BILLINGWATCH_ISOLATION="row")

    assert (some, "error: in row isolation all tenants are migrated together" in refused) == (2, True)
    assert (code, "all tenants together migrated, in" in talk) == (0, True)
    assert await migrated(control, revision) == len(trio)


async def test_a_dry_run_counts_what_it_would_do(control: Any, release: Any, trio: Any, command: Command) -> None:
    revision = release.add("tenant", ADD)

    code, said, _ = await command.run("--dry-run")
    also, plan = await command.json(BILLINGWATCH_CLI_DRY_RUN="true", BILLINGWATCH_CLI_TENANT="first third")

    assert (code, also) == (0, 0)
    assert "3 to migrate" in said
    assert f"{BEFORE} → {revision}" in said
    assert {each["name"] for each in plan["tenants"]} == {"first", "third"}
    assert await migrated(control, revision) == 0


async def test_options_have_twins_in_the_environment(control: Any, release: Any, trio: Any, command: Command) -> None:
    release.add("tenant", "SELECT 1 / 0")

    code, report = await command.json(BILLINGWATCH_CLI_CANARY="0", BILLINGWATCH_CLI_MAX_FAILURES="2", BILLINGWATCH_CLI_JOBS="1")

    assert (code, report["failed"], report["not_tried"], report["stopped_by"]) == (1, 2, 1, "max_failures")


async def test_both_lines_are_taken_back_and_taken_again(control: Any, connect: Any, release: Any, trio: Any, command: Command) -> None:
    revision = release.add("tenant", ADD, back=DROP)
    await command.run()
    unknown, _, refused = await command.run("--tenant", "nobody")

    back, report = await command.json("--downgrade", "tenant")
    control_back, control_report = await command.json("--downgrade", "control")
    up, upgraded = await command.json()

    assert (unknown, "error: there is no tenant `nobody`" in refused) == (2, True)
    assert (back, report["migrated"]) == (0, 3)
    assert (control_back, control_report["control_to"]) == (0, f"{int(migrations.head('control')) - 1:04d}")
    assert (up, upgraded["migrated"], upgraded["control_to"]) == (0, 3, migrations.head("control"))
    assert await migrated(control, revision) == 3
    async with tenant_scope(await connect(), trio["first"]) as scoped:
        assert await scoped.fetch("SELECT nickname FROM customers") == []


async def test_control_downgrade_keeps_paused_tenants_and_drops_limited_keys(control: Any, trio: Any, command: Command) -> None:
    await pause_tenant(control, "first", as_of=utc_now())
    await control.execute("UPDATE control.tenants SET status = 'removing' WHERE name = 'second'")
    for name, scope, end in (
        ("reader", "read", None),
        ("expired", "write", timedelta(seconds=-1)),
        ("lasting", "write", timedelta(days=9)),
    ):
        await create_key(control, "third", name, scope=cast(Scope, scope), expires_in=end)

    back, _ = await command.json("--downgrade", "control")
    keys = await control.fetchval("SELECT count(*) FROM control.api_keys JOIN control.tenants USING (tenant_id) WHERE name = 'third'")
    up, _ = await command.json()

    states = await control.fetch("SELECT name, status FROM control.tenants ORDER BY name")
    assert (back, up, keys) == (0, 0, 2)
    assert [tuple(row) for row in states] == [("first", "active"), ("second", "removing"), ("third", "active")]


async def test_a_run_with_nothing_to_do_says_so(release: Any, trio: Any, command: Command) -> None:
    code, said, talk = await command.run()

    assert (code, said) == (0, "")
    assert "every tenant is where it should be" in talk
