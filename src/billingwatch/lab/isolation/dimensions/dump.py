"""Backups: pg_dump of everything, and the locks that it takes."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.world import Task
from billingwatch.postgres.embedded import EmbeddedServer
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "dump.sql")

LOOK_EVERY = 0.05  # seconds


def measure(task: Task) -> Figures:
    """Dump the database of the arm, and count the locks meanwhile."""
    return asyncio.run(_measure(task))


async def _measure(task: Task) -> Figures:
    program = _pg_dump(task)
    if program is None:
        return {}
    target = task.stage.directory / "dump"
    began, locks = time.perf_counter(), 0
    dump = await asyncio.create_subprocess_exec(
        program, "--format=custom", "--compress=0", f"--file={target}", f"--dbname={task.stage.dsn}", stderr=asyncio.subprocess.DEVNULL
    )
    async with task.stage.control() as connection:
        ended = asyncio.create_task(dump.wait())
        while not ended.done():
            locks = max(locks, await connection.fetchval(sql["locks"]))
            await asyncio.wait([ended], timeout=LOOK_EVERY)
    took = time.perf_counter() - began
    if dump.returncode:
        # That it runs out of locks is a result, too.
        return {"failed": 1.0, "locks": float(locks)}
    size = target.stat().st_size
    target.unlink()
    return {"failed": 0.0, "seconds": took, "locks": float(locks), "mb": size / 1024**2}


def _pg_dump(task: Task) -> Path | None:
    """The one that fits the server: beside psql of the embedded server, else on the PATH."""
    ground = task.world.ground.settings
    if ground.database_url is None:
        with EmbeddedServer.acquire(ground.data_dir, binaries=ground.postgres_bin) as server:
            beside = server.psql.with_name("pg_dump")
        return beside if beside.is_file() else None
    found = shutil.which("pg_dump")
    return Path(found) if found else None


DIMENSION = Dimension(
    key="dump",
    title="A full backup with pg_dump",
    method="pg_dump of the arm's whole database into a file, uncompressed; the locks that it holds are counted every 50 ms. It locks every table, so "
    "max_locks_per_transaction × (max_connections + max_prepared_transactions) must have room for all of them.",
    measures=(
        Measure(key="seconds", title="duration", unit="s", headline=True),
        Measure(key="locks", title="locks held at once", unit="locks"),
        Measure(key="mb", title="size", unit="MB", better=None),
        Measure(key="failed", title="failed for want of locks", unit="0 or 1"),
    ),
    measure=measure,
    once_from=10_000,
)
