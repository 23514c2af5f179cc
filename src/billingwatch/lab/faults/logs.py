"""Faults of the log: its reader is gone, or reads no more. A tenant is locked, so that the service logs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from billingwatch.lab.faults.postgres import lock_tenant
from billingwatch.lab.faults.scenario import Scenario
from billingwatch.lab.faults.scene import Scene

LOG_ENVIRON = {"BILLINGWATCH_LOG_LEVEL": "info"}  # locks, unlocks and anomalies are logged
DRAIN_BYTES = 1 << 20


@asynccontextmanager
async def close_log(scene: Scene) -> AsyncIterator[None]:
    """Close the reading end: each later write fails with EPIPE."""
    pipe = scene.open_pipe
    if pipe.reader is not None:
        os.close(pipe.reader)
        pipe.reader = None
    async with lock_tenant(scene):
        yield


@asynccontextmanager
async def block_log(scene: Scene) -> AsyncIterator[None]:
    """Fill the pipe and read nothing: each later write waits. Read again at the end."""
    pipe = scene.open_pipe
    # Opened again, because O_NONBLOCK belongs to the open file, and the service's must stay as it is.
    filler = os.open(f"/proc/self/fd/{pipe.writer}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        with suppress(BlockingIOError):
            while True:
                os.write(filler, b"\n" * 512)
        with suppress(BlockingIOError):
            while True:
                os.write(filler, b"\n")
    finally:
        os.close(filler)
    try:
        async with lock_tenant(scene):
            yield
    finally:
        drain(pipe.reader)


def drain(reader: int | None) -> None:
    """Read what the pipe holds, without waiting for more."""
    if reader is not None:
        with suppress(BlockingIOError):
            while os.read(reader, DRAIN_BYTES):
                pass


SCENARIOS = (
    Scenario(
        name="log-pipe-closed",
        summary="nobody holds the other end of the service's log pipe; a tenant is locked",
        ready="200",
        strike=close_log,
        output="pipe",
        environ=LOG_ENVIRON,
        needs=("schema",),
        seconds=4,
        quick=2,
        spares=True,
    ),
    Scenario(
        name="log-pipe-blocked",
        summary="the service's log pipe is full, and nobody reads it; a tenant is locked",
        ready="200",
        strike=block_log,
        output="pipe",
        environ=LOG_ENVIRON,
        needs=("schema",),
        seconds=10,
        spares=True,
    ),
)
