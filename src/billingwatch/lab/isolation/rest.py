"""Rest: what earlier measurements left to autovacuum is done before the next one begins."""

from __future__ import annotations

import asyncio

from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "rest.sql")

LOOK_EVERY = 0.1  # seconds
QUIET = 2.0  # seconds without work, after which the server counts as at rest


async def await_rest(control: ControlConnection, *, patience: float) -> bool:
    """Wait until nothing in the server is vacuumed or analyzed, at most `patience` seconds. Whether it is so."""
    loop = asyncio.get_running_loop()
    began = quiet_from = loop.time()
    while loop.time() < began + patience:
        if await control.fetchval(sql["is_vacuuming"]):
            quiet_from = loop.time()
        elif loop.time() >= quiet_from + QUIET:
            return True
        await asyncio.sleep(LOOK_EVERY)
    return False
