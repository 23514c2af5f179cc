"""A full disk: the data directory lies on a small tmpfs, which another program fills."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from billingwatch.errors import BillingWatchError
from billingwatch.lab.faults.logs import LOG_ENVIRON
from billingwatch.lab.faults.scenario import Scenario
from billingwatch.lab.faults.scene import Scene
from billingwatch.lab.stage import uninterrupted

DISK_SIZE = "600m"  # PostgreSQL's programs take 100 MB, a new cluster and its WAL 150 MB
FILL_EVERY = 0.2  # seconds; PostgreSQL may free a file in between
CHUNK = 1 << 20  # bytes


class MountRefused(BillingWatchError):
    """a tmpfs cannot be mounted here: {reason}"""


@contextmanager
def small_disk() -> Iterator[Path]:
    """Mount a tmpfs for the block. MountRefused when that is not permitted."""
    point = Path(tempfile.mkdtemp(prefix="billingwatch-disk-"))
    try:
        if os.geteuid() != 0 or shutil.which("mount") is None:
            raise MountRefused(reason="it takes root and the program `mount`")
        options = f"size={DISK_SIZE},mode=0711"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "billingwatch-bench", point],  # noqa: S607 - by PATH
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise MountRefused(reason=done.stderr.strip())
        try:
            yield point
        finally:
            with uninterrupted():
                # --lazy: a process that still ends may keep the directory busy for a moment.
                subprocess.run(["umount", "--lazy", point], check=False)  # noqa: S607 - by PATH
    finally:
        with uninterrupted():
            point.rmdir()


@asynccontextmanager
async def fill_disk(scene: Scene) -> AsyncIterator[None]:
    """Take every free byte, and keep taking what becomes free."""
    if scene.disk is None:
        raise MountRefused(reason="the scenario has no small disk")
    filler = scene.disk / "filler"

    async def fill() -> None:
        with filler.open("ab", buffering=0) as file:
            while True:
                await asyncio.to_thread(take, file.fileno())  # the first time 400 MB
                await asyncio.sleep(FILL_EVERY)

    task = asyncio.create_task(fill())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        filler.unlink(missing_ok=True)


def take(file: int) -> None:
    """Append until the disk is full."""
    size = CHUNK
    while size:
        try:
            os.write(file, bytes(size))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            size //= 2


_READY = "503 while every event is refused for longer than 5 s; 200 within 60 s after space is free"

SCENARIOS = (
    Scenario(
        name="disk-full",
        summary="the disk with PostgreSQL's data is full",
        ready=_READY,
        strike=fill_disk,
        needs=("embedded", "mount"),
        environ=LOG_ENVIRON,
        small_disk=True,
        seconds=15,
        recovery=60,
    ),
    Scenario(
        name="disk-full-with-log",
        summary="the disk with PostgreSQL's data and the service's log is full",
        ready=_READY,
        strike=fill_disk,
        needs=("embedded", "mount"),
        environ=LOG_ENVIRON,
        small_disk=True,
        log_on_disk=True,
        seconds=15,
        recovery=60,
    ),
)
