"""Faults of PostgreSQL: killed, restarted, stopped, disconnected, locked."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

from billingwatch.lab.faults.scenario import Scenario
from billingwatch.lab.faults.scene import Scene
from billingwatch.lab.machine import PROC, descendants
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.scope import tenant_scope

sql = load_statements(__file__, "postgres.sql")

DISCONNECT_EVERY = 0.5  # seconds

_DOWN = "503 while PostgreSQL is down for longer than 5 s, 200 within 20 s after"


@asynccontextmanager
async def kill_backend(scene: Scene) -> AsyncIterator[None]:
    """Kill the backend of an ingest lane. PostgreSQL then ends all others and recovers."""
    async with scene.stage.control() as control:
        pid = await control.fetchval(sql["a_backend"])
    os.kill(pid, signal.SIGKILL)
    yield


@asynccontextmanager
async def kill_postmaster(scene: Scene) -> AsyncIterator[None]:
    """Kill the postmaster. The service has to start PostgreSQL again."""
    os.kill(scene.postmaster, signal.SIGKILL)
    yield


@asynccontextmanager
async def restart_postgres(scene: Scene) -> AsyncIterator[None]:
    """Stop PostgreSQL in its fast mode, as an upgrade of the package does. The service starts it again."""
    os.kill(scene.postmaster, signal.SIGINT)
    yield


@asynccontextmanager
async def stop_postgres(scene: Scene) -> AsyncIterator[None]:
    """Send SIGSTOP to every process of PostgreSQL, and SIGCONT at the end."""
    postmaster = scene.postmaster
    stopped: list[int] = []
    try:
        os.kill(postmaster, signal.SIGSTOP)  # first, so that it forks no more
        stopped.append(postmaster)
        for pid in descendants(postmaster):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                stopped.append(pid)
        yield
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def disconnect(scene: Scene) -> AsyncIterator[None]:
    """End all sessions of the service, again each half second."""

    async def repeat() -> None:
        async with scene.stage.control() as control:
            while True:
                await control.fetchval(sql["end_backends"])
                await asyncio.sleep(DISCONNECT_EVERY)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def lock_tenant(scene: Scene) -> AsyncIterator[None]:
    """Lock the first tenant's `events` against everyone."""
    async with scene.stage.control() as control, tenant_scope(control, scene.members[0]) as tenant:
        await tenant.execute(sql["lock_events"])
        locked_at = time.monotonic()
        yield
        hit = [event for event in scene.stream.events if event.tenant == 0]
        attempts = [attempt for event in hit for attempt in event.attempts if attempt.sent_at > locked_at]
        if any(attempt.status == 200 for attempt in attempts):
            scene.notes.append("events of the locked tenant were acknowledged")


def end_postgres(data_dir: Path) -> None:
    """Kill what is left of the embedded server of a data directory that is gone.

    PostgreSQL 18 may never end when a fast stop meets its recovery from a crash.
    """
    data = str(data_dir.resolve() / "postgres" / "data")
    for entry in PROC.glob("[0-9]*"):
        with suppress(OSError):
            arguments = (entry / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
            if ("-D", data) in pairwise(arguments):
                for pid in (int(entry.name), *descendants(int(entry.name))):
                    os.kill(pid, signal.SIGKILL)


SCENARIOS = (
    Scenario(
        name="backend-killed",
        summary="kill -9 of a PostgreSQL backend, which restarts the server",
        ready=_DOWN,
        strike=kill_backend,
        needs=("embedded",),
        seconds=3,
        quick=1,
    ),
    Scenario(
        name="postmaster-killed",
        summary="kill -9 of the postmaster; the service starts it again",
        ready=_DOWN,
        strike=kill_postmaster,
        needs=("embedded",),
        seconds=5,
        quick=2,
    ),
    Scenario(
        name="postgres-restarted",
        summary="fast stop of PostgreSQL; the service starts it again",
        ready=_DOWN,
        strike=restart_postgres,
        needs=("embedded",),
        seconds=5,
    ),
    Scenario(
        name="postgres-stopped",
        summary="SIGSTOP of the postmaster and all backends",
        ready="503 from 5 s after the stop until the end, each answer within 2 s; 200 within 20 s after",
        strike=stop_postgres,
        needs=("embedded",),
        seconds=25,
    ),
    Scenario(
        name="sessions-ended",
        summary="pg_terminate_backend of all sessions of the service, each 0.5 s",
        ready="503 at most while sessions are ended, 200 within 20 s after",
        strike=disconnect,
        seconds=4,
    ),
    Scenario(
        name="tenant-locked",
        summary="ACCESS EXCLUSIVE lock on one tenant's events; other tenants are served",
        ready="200: other tenants' events are recorded",
        strike=lock_tenant,
        needs=("schema",),
        seconds=5,
        quick=2,
        spares=True,
    ),
)
