"""Processes that are killed come back, orphans end, and a log that nobody reads stops nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import httpx
import psutil
import pytest

from billingwatch.postgres.embedded import EmbeddedServer
from billingwatch.simulate.payloads import charge_event_payloads

from .conftest import Serving
from .test_processes import count, post, provision, reaches

SECONDS = 60  # a generous limit


@pytest.fixture
def bodies() -> list[bytes]:
    return list(charge_event_payloads(60, seed=9, created=int(time.time()) - 3600, seconds=3000))


def children(served: Serving, *, worker: bool) -> list[psutil.Process]:
    """Children that process events, or those that answer HTTP."""
    found = []
    for child in psutil.Process(served.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            command = " ".join(child.cmdline())
            if ("billingwatch worker" in command) if worker else ("spawn_main" in command):
                found.append(child)
    return found


def until(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_killed_children_are_restarted(installation: Any, bodies: list[bytes]) -> None:
    made, path = provision(installation)
    charges = f"SELECT count(*) FROM {made['schema']}.charges"

    with installation.serving("--workers", "2") as served, EmbeddedServer.acquire(installation.directory) as server:
        async with httpx.AsyncClient(base_url=served.url, timeout=30) as client:
            [worker], http = children(served, worker=True), children(served, worker=False)
            worker.kill()
            http[0].kill()
            until(lambda: worker.pid not in [one.pid for one in children(served, worker=True)])
            until(lambda: len(children(served, worker=True)) == 1)
            until(lambda: len({one.pid for one in children(served, worker=False)} - {http[0].pid}) == 2)
            for body in bodies:
                with contextlib.suppress(httpx.HTTPError):
                    await post(client, path, body)
            stored = await count(server.dsn, f"SELECT count(*) FROM {made['schema']}.events")
            processed = await reaches(server.dsn, charges, stored)
            ready = await client.get("/health/ready")
        log = (installation.directory / "serve.log").read_text()

    assert stored >= len(bodies) - 1
    assert processed
    assert ready.status_code == 200
    assert log.count("serve.worker_ended") == 1
    assert log.count("serve.process_ended") == 1
    assert served.process.returncode == 0


def test_children_of_a_killed_service_end_and_free_the_port(installation: Any) -> None:
    with installation.serving("--workers", "2") as served:
        family = children(served, worker=True) + children(served, worker=False)
        served.process.kill()
        served.process.wait()
        with installation.serving("--workers", "2", "--port", served.url.rpartition(":")[2]) as again:
            gone, _ = psutil.wait_procs(family, timeout=SECONDS)
            url = again.url
    assert len(family) == 3
    assert {one.pid for one in gone} == {one.pid for one in family}
    assert url == served.url


class LogPipe:
    """A pipe for the log of a service; the test reads until the service listens."""

    def __init__(self) -> None:
        reader, self._writer = os.pipe()
        self.reader = os.fdopen(reader, "rb")

    def fill(self) -> None:
        """Write until the next write of anybody blocks."""
        room = select.poll()
        room.register(self._writer, select.POLLOUT)
        while room.poll(0):
            os.write(self._writer, b"x" * select.PIPE_BUF)

    def close(self) -> None:
        self.reader.close()
        os.close(self._writer)


@contextlib.contextmanager
def serving_into_a_pipe(installation: Any, *arguments: str) -> Iterator[tuple[Serving, LogPipe]]:
    """A service whose log goes to a pipe."""
    pipe = LogPipe()
    command = installation.command("serve", "--port", "0", *arguments)
    process = subprocess.Popen(command, env=installation.environ, stdout=subprocess.DEVNULL, stderr=pipe._writer)
    try:
        while "listening on " not in (line := pipe.reader.readline().decode()):
            assert process.poll() is None, "the service has ended"
        served = Serving(process, line.split()[2])
        served.await_ready()
        yield served, pipe
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        pipe.close()


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")], ids=["one process", "several"])
@pytest.mark.parametrize("reader", ["closed", "silent"])
async def test_service_outlives_the_reader_of_its_log(
    installation: Any, bodies: list[bytes], arguments: tuple[str, ...], reader: str
) -> None:
    made, path = provision(installation)
    twins = list(charge_event_payloads(1, seed=3, created=int(time.time()), seconds=1))

    installation.environ["BILLINGWATCH_LOG_LEVEL"] = "debug"
    with serving_into_a_pipe(installation, *arguments) as (served, pipe), EmbeddedServer.acquire(installation.directory) as server:
        if reader == "closed":
            pipe.reader.close()
        else:
            pipe.fill()
        async with httpx.AsyncClient(base_url=served.url, timeout=30) as client:
            await lock_for_a_moment(server.dsn, made["schema"], client, path, twins[0])
            answers = [await post(client, path, body) for body in bodies]
            processed = await reaches(server.dsn, f"SELECT count(*) FROM {made['schema']}.charges", len(bodies) + 1)
            ready = await client.get("/health/ready")

    assert {answer.status_code for answer in answers} == {200}
    assert processed
    assert ready.status_code == 200


async def lock_for_a_moment(dsn: str, schema: str, client: httpx.AsyncClient, path: str, body: bytes) -> None:
    """Make the recorder log that a tenant is locked; return once the tenant's events are recorded again."""
    holder = await asyncpg.connect(dsn)
    async with holder.transaction():
        await holder.execute(f"LOCK TABLE {schema}.events IN ACCESS EXCLUSIVE MODE")
        refused = await post(client, path, body)
    await holder.close()
    async with asyncio.timeout(SECONDS):
        while (await post(client, path, body)).status_code != 200:
            await asyncio.sleep(0.1)
    assert refused.status_code == 503


def test_orphaned_worker_ends(installation: Any) -> None:
    provision(installation)
    with installation.serving():
        shell = subprocess.Popen(
            ["sh", "-c", '"$@" --parent $$ & echo $!; wait', "sh", *installation.command("worker")],
            env=installation.environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert shell.stdout is not None
        worker = psutil.Process(int(shell.stdout.readline()))
        shell.kill()
        shell.wait()
        shell.stdout.close()
        gone, _ = psutil.wait_procs([worker], timeout=SECONDS)

    assert [one.pid for one in gone] == [worker.pid]


PATCHED = """
import os, sys
from billingwatch.cli import main, processes
original = processes.HttpProcesses.__init__
def fail(self):
    raise RuntimeError("broken")
def start_children_with_another_key(self, *arguments):
    os.environ["BILLINGWATCH_SECRET_KEY"] = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    original(self, *arguments)
processes.HttpProcesses.{name} = {patch}
sys.argv = ["billingwatch", "serve", "--port", "0", "--workers", "2"]
main()
"""


@pytest.mark.parametrize(
    ("name", "patch", "event"),
    [
        ("keep_subprocess_alive", "fail", "serve.supervision_failed"),
        ("__init__", "start_children_with_another_key", "serve.start_failed"),
    ],
    ids=["supervision", "first start"],
)
def test_failed_supervision_or_first_start_ends_every_process(installation: Any, name: str, patch: str, event: str) -> None:
    provision(installation)
    code = PATCHED.format(name=name, patch=patch)

    # The children hold the pipe, too: the read ends when all of them have ended.
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=installation.environ, stderr=subprocess.PIPE, timeout=SECONDS, check=False
    )

    assert done.returncode == 1
    assert event in done.stderr.decode()
