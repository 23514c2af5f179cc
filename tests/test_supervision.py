"""Supervised tasks restart when they end, and stop when they are told to."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from billingwatch import supervision
from billingwatch.supervision import SupervisedTask


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(supervision, "RESTART_PAUSES", (0.01, 0.02))


@pytest.mark.parametrize("end", [None, ValueError("broken"), asyncio.CancelledError(), BaseException("odd")], ids=repr)
async def test_run_that_ends_is_logged_and_started_again(end):
    runs = 0
    again = asyncio.Event()

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            if end is not None:
                raise end
            return
        again.set()
        await asyncio.Event().wait()

    task = SupervisedTask("tests", run)
    with capture_logs() as logs:
        task.start()
        async with asyncio.timeout(20):
            await again.wait()
    alive = task.alive
    await task.stop()

    assert [(entry["event"], entry["task"]) for entry in logs] == [("supervision.task_ended", "tests")]
    assert (alive, task.alive, task.restarts) == (True, False, 1)


async def test_finish_waits_for_the_run():
    told = asyncio.Event()
    task = SupervisedTask("tests", told.wait)
    task.start()
    await asyncio.sleep(0)

    told.set()
    await task.finish(within=20)

    assert (task.alive, task.restarts) == (False, 0)


async def test_finish_cancels_a_run_that_takes_too_long():
    task = SupervisedTask("tests", asyncio.Event().wait)
    task.start()

    async with asyncio.timeout(20):
        await task.finish(within=0.01)

    assert not task.alive


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit(130)"])
def test_end_of_the_program_passes_through(error):
    code = f"""
import asyncio
from billingwatch.supervision import SupervisedTask
async def run():
    raise {error}
async def main():
    SupervisedTask("tests", run).start()
    await asyncio.Event().wait()
try:
    asyncio.run(main())
except KeyboardInterrupt:
    raise SystemExit(130)
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, check=False)

    assert done.returncode == 130


def test_event_loop_ends_while_a_task_runs():
    code = """
import asyncio
from billingwatch.supervision import SupervisedTask
async def main():
    SupervisedTask("tests", asyncio.Event().wait).start()
    await asyncio.sleep(0.01)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
