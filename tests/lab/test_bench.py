"""The benchmarks end to end, tiny: that what was acknowledged is stored, whatever the speed, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import msgspec
import pytest

SIZE = ["--tenants", "5", "--seconds", "1", "--connections", "8", "--json"]


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory for temporary files, which must be empty in the end; the embedded server's user may pass through."""
    room = Path(tempfile.mkdtemp(prefix="billingwatch-lab-"))
    room.chmod(0o711)
    yield room
    left = list(room.iterdir())
    shutil.rmtree(room)
    assert left == []


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "billingwatch", "bench", *arguments]


def environ(room: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(room), "BILLINGWATCH_LOG_LEVEL": "warning", **more}


def run(room: Path, *arguments: str, **more: str) -> dict:
    done = subprocess.run(command(*arguments), env=environ(room, **more), capture_output=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return msgspec.json.decode(done.stdout)


def figures(report: dict) -> dict[str, float | None]:
    return {figure["key"]: figure["value"] for figure in report["figures"]}


async def databases(dsn: str) -> set[str]:
    connection = await asyncpg.connect(dsn)
    names = {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database WHERE datname LIKE 'billingwatch_bench%'")}
    await connection.close()
    return names


async def roles(server) -> set[str]:
    """The roles of row isolation that belong to the databases of running benches."""
    found: set[str] = set()
    for name in await databases(server.dsn):
        connection = await asyncpg.connect(server.dsn_for(name))
        shared = await connection.fetchval("SELECT schema_name FROM control.isolation")
        found |= {f"{shared}{suffix}" for suffix in ("", "_recorder", "_analysts", "_reader") if shared}
        await connection.close()
    return await remaining(server.dsn, found)


async def remaining(dsn: str, names: set[str]) -> set[str]:
    connection = await asyncpg.connect(dsn)
    found = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles WHERE rolname = ANY ($1)", list(names))}
    await connection.close()
    return found


def test_every_event_that_bench_ingest_has_acknowledged_is_stored_once(room):
    report = run(room, "ingest", *SIZE, "--rate", "50", "--zipf")

    assert report["passed"]
    assert [check["passed"] for check in report["checks"]] == [True] * 4
    assert report["acked"] == report["stored"] == report["statuses"]["200"] > 50
    assert all(value > 0 for value in figures(report).values())
    assert {held["process"] for held in report["memory"]} >= {"service", "postgres: billingwatch ingest 0"}


async def test_bench_pipeline_processes_every_event_on_a_given_server(room, server):
    report = run(room, "pipeline", *SIZE, "--rate", "20", BILLINGWATCH_DATABASE_URL=server.dsn)

    assert report["passed"]
    assert [check["passed"] for check in report["checks"]] == [True] * 6
    assert report["acked"] == report["stored"] > 20
    assert figures(report)["processed_per_second"] > 0
    assert figures(report)["verdict_p50"] > 0
    assert await databases(server.dsn) == set()


def test_bench_migrate_adds_its_columns_and_loses_no_event(room):
    report = run(room, "migrate", *SIZE, "--rate", "20")

    assert report["passed"]
    assert [check["passed"] for check in report["checks"]] == [True] * 9
    assert report["acked"] == report["stored"] > 5
    assert all(figures(report)[key] > 0 for key in ("idle", "loaded", "nothing", "floor", "back"))


@pytest.fixture
def interruptible():
    """A shell ignores SIGINT for what it starts in the background, tests included, and so would their children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "isolation"), [(signal.SIGINT, "schema"), (signal.SIGTERM, "row")])
def test_an_interrupted_bench_leaves_no_process_directory_database_or_role(room, server, interruptible, number, isolation):
    env = environ(room, BILLINGWATCH_DATABASE_URL=server.dsn, BILLINGWATCH_ISOLATION=isolation)
    with subprocess.Popen(command("ingest", *SIZE, "--seconds", "60"), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as bench:
        while b"closed loop" not in (said := bench.stderr.readline()):
            assert said, "it ended before the load began"
        made = asyncio.run(roles(server))

        bench.send_signal(number)

        bench.communicate(timeout=60)
    assert bench.returncode != 0
    assert processes_in(room) == []
    assert asyncio.run(databases(server.dsn)) == set()
    assert len(made) == (4 if isolation == "row" else 0)
    assert asyncio.run(remaining(server.dsn, made)) == set()


def processes_in(room: Path) -> list[str]:
    """Commands of the processes whose temporary files would lie in `room`; none where the system does not tell."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(room) in (process / "environ").read_text(errors="replace"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_the_tables_for_people_show_figures_aims_and_checks(room, server):
    size = ["--tenants", "2", "--seconds", "0.5", "--rate", "20"]
    done = subprocess.run(
        command("ingest", *size), env=environ(room, BILLINGWATCH_DATABASE_URL=server.dsn), capture_output=True, timeout=110, check=True
    )

    text = done.stdout.decode()
    for words in ("acknowledged, 2 tenants", "≥ 2,500", "floor: flat table", "postgres: billingwatch ingest 0", "PASS"):
        assert words in text
    assert "FAIL" not in text
    assert "closed loop, round 1 of 1" in done.stderr.decode()
