"""`bench faults` end to end, in its short form: real processes, real signals, a database of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

# Each group fits the time-out of one test.
GROUPS = (
    ("backend-killed", "postmaster-killed"),
    ("tenant-locked", "reset-before-answer", "service-killed"),
    ("worker-child-killed",),
    ("log-pipe-closed",),
)


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory for temporary files, which must be empty in the end."""
    room = Path(tempfile.mkdtemp(prefix="billingwatch-faults-test-"))
    room.chmod(0o711)  # the embedded server's user passes through
    yield room
    left = list(room.iterdir())
    shutil.rmtree(room)
    assert left == []


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "billingwatch", "bench", "faults", *arguments]


def environ(room: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(room)}


def bench(room: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    given = environ(room) | more
    return subprocess.run(command(*arguments), env=given, capture_output=True, timeout=115, check=False)


def processes_in(room: Path) -> list[str]:
    """Return the commands of processes that name `room` in their arguments or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text(errors="replace")
            if str(room) in words or str(room) in (process / "environ").read_text(errors="replace"):
                found.append(words.replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: names[0])
def test_no_event_is_lost_or_doubled_and_ready_is_right(room: Path, names: tuple[str, ...]):
    chosen = [part for name in names for part in ("--only", name)]
    done = bench(room, "--quick", "--json", *chosen)

    rows = {row["name"]: row for row in msgspec.json.decode(done.stdout)["rows"]}
    assert rows.keys() == set(names)
    for row in rows.values():
        assert row["skipped"] is None
        assert row["acked"] == row["stored"] == row["processed"] > 30, row
        assert (row["lost"], row["doubled"], row["ready"]) == (0, 0, True), row
    assert processes_in(room) == []


def stopped_processes_in(room: Path) -> list[int]:
    """Return the pids of processes whose program lies in `room` and that SIGSTOP has stopped."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            ours = str(room) in str((process / "exe").readlink())
            if ours and (process / "stat").read_text().rpartition(")")[2].split()[0] == "T":
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_bench_interrupted_during_fault_leaves_no_process_or_directory(room: Path, number: signal.Signals):
    arguments = command("--only", "postgres-stopped", "--seconds", "60")
    # A child of a background shell ignores SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(arguments, env=environ(room), stderr=subprocess.PIPE) as running:
        signal.signal(signal.SIGINT, before)
        assert b"postgres-stopped" in running.stderr.readline()
        while not stopped_processes_in(room):
            assert running.poll() is None
            time.sleep(0.1)

        running.send_signal(number)

        running.communicate(timeout=60)
    assert running.returncode != 0
    assert processes_in(room) == []


def test_list_names_every_fault_and_runs_none(room: Path):
    done = bench(room, "--list", "--json")

    listed = msgspec.json.decode(done.stdout)
    assert len(listed) > 20
    assert {"name", "family", "summary", "seconds", "quick", "ready"} == listed[0].keys()


def test_row_that_cannot_run_is_skipped_with_its_reason(room: Path, server):
    done = bench(room, "--only", "postmaster-killed", "--json", BILLINGWATCH_DATABASE_URL=server.dsn)

    [row] = msgspec.json.decode(done.stdout)["rows"]
    assert row["rounds"] == 0
    assert "BILLINGWATCH_DATABASE_URL" in row["skipped"]
