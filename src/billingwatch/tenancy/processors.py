"""Processes that process events: a row each, which they update while their tasks run."""

from __future__ import annotations

import os
import socket

from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "processors.sql")

REPORT_SECONDS = 5.0  # between two reports
MISSING_SECONDS = 30.0  # without a report, after which a processor counts as gone


async def register_processor(control: ControlConnection) -> int:
    """Insert the row of this process, delete those of the day before, and return its id."""
    await control.execute(sql["delete_stale"])
    processor_id: int = await control.fetchval(sql["register"], socket.gethostname(), os.getpid())
    return processor_id


async def report_processor(control: ControlConnection, processor_id: int) -> bool:
    """Update the time of the last report; return False when the row is gone."""
    return await control.fetchval(sql["report"], processor_id) is not None


async def unregister_processor(control: ControlConnection, processor_id: int) -> None:
    await control.execute(sql["unregister"], processor_id)


async def count_processors(control: ControlConnection) -> int:
    """Count the processors that have reported in the last `MISSING_SECONDS`."""
    processors: int = await control.fetchval(sql["count"], MISSING_SECONDS)
    return processors
