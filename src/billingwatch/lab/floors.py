"""The floor under recording: the same events in one flat table, through multi-row durable INSERTs, with no HTTP and no tenants."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import islice

import msgspec

from billingwatch.clock import utc_now
from billingwatch.ingest.envelope import read_envelope
from billingwatch.lab.bodies import bodies, event_id_of
from billingwatch.lab.stage import Stage
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "floors.sql")

CONNECTIONS = 2  # with ROWS as many events on their way as the load has connections
ROWS = 64  # distinct events in a statement


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What went into the flat table."""

    rows: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Rows/s."""
        return self.rows / self.seconds


async def make_flat(stage: Stage) -> None:
    """Make the table. Before the service runs: CREATE SCHEMA drops the plans that other sessions keep."""
    async with stage.control() as control:
        await control.execute(sql["create_flat"])


async def write_flat(stage: Stage, seconds: float, *, seed: int) -> Written:
    """Insert for some seconds, and empty the table again."""
    async with stage.control() as first, stage.control() as second:
        events = bodies(seed)
        began, cpu = time.monotonic(), time.process_time()
        rows = sum(await asyncio.gather(*(_insert(connection, events, began + seconds) for connection in (first, second))))
        took, cpu = time.monotonic() - began, time.process_time() - cpu
        await first.execute(sql["empty_flat"])
    return Written(rows=rows, seconds=took, cpu_seconds=cpu)


async def _insert(connection: ControlConnection, events: Iterator[bytes], end: float) -> int:
    rows = 0
    like = read_envelope(next(events))
    while time.monotonic() < end:
        batch = list(islice(events, ROWS))
        now = utc_now()
        await connection.execute(
            sql["insert_flat"],
            [event_id_of(body) for body in batch],
            [like.type] * ROWS,
            [like.api_version] * ROWS,
            [like.livemode] * ROWS,
            [like.account] * ROWS,
            [like.object_id] * ROWS,
            [like.occurred_at] * ROWS,
            [now] * ROWS,
            [now] * ROWS,
            [body.decode() for body in batch],
        )
        rows += ROWS
    return rows
