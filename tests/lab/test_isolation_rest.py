from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg

from billingwatch.lab.isolation.rest import QUIET, await_rest


async def test_a_vacuum_is_waited_for(connect, control):
    other: asyncpg.Connection = await connect()
    await other.execute("CREATE TABLE control.large AS SELECT n, repeat('x', 1000) AS text FROM generate_series(1, 20000) AS s (n)")
    await other.execute("SET vacuum_cost_delay = 100")
    await other.execute("SET vacuum_cost_limit = 1")
    vacuum = asyncio.create_task(other.execute("VACUUM control.large"))

    while_it_runs = await await_rest(control, patience=QUIET + 1)
    still_runs = not vacuum.done()
    await control.execute("SELECT pg_cancel_backend($1)", other.get_server_pid())
    with suppress(asyncpg.QueryCanceledError):
        await vacuum

    assert (while_it_runs, still_runs) == (False, True)
    assert await await_rest(control, patience=120)
