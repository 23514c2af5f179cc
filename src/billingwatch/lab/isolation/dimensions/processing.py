"""Processing: events recorded, projected and looked at by every detector."""

from __future__ import annotations

import asyncio

from billingwatch.lab.backlog import drain
from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.world import Task
from billingwatch.lab.run import Run
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "processing.sql")

PATIENCE = 60  # times the length of a phase, that its backlog may take
MEGA = 1_000_000


def measure(task: Task) -> Figures:
    """A closed loop, and then until nothing waits."""
    run: Run = task.books()
    patience = max(task.scale.seconds * PATIENCE, 120)
    asyncio.run(_forget(task))
    with task.serve() as service, task.load() as load:
        run.sweep(load, service)
        asyncio.run(drain(task.stage, patience))
        load.prepare(run.phase(service, task.scale.seconds))
        with run.booked("closed loop and its backlog", service) as bill:
            load.start()
            full = bill.add(load.finish())
            drained = asyncio.run(drain(task.stage, patience))
        held = run.memory(service)
    cost = run.costs[-1]
    work = [each.memory.private for each in held if "work" in each.process and each.memory is not None]
    return {
        **({"processed_per_second": full.acked / (drained.ended - full.began)} if drained.ended is not None else {}),
        **({"postgres_us": cost.postgres / cost.events * MEGA} if cost.postgres is not None else {}),
        **({"backend_mb": sum(work)} if work else {}),
    }


async def _forget(task: Task) -> None:
    async with task.stage.control() as control:
        await control.execute(sql["forget"])
        await control.execute(sql["judged"])


DIMENSION = Dimension(
    key="processing",
    title="Processing events",
    method="The whole service: events are posted as fast as they are acknowledged, and the clock runs until each is projected and every detector "
    "has looked at it. One event for each tenant has gone through before. "
    "The detectors of time have nothing to do meanwhile. Memory is the private memory of the processing backends afterwards.",
    measures=(
        Measure(key="processed_per_second", title="recorded and processed", unit="events/s", better="more", headline=True),
        Measure(key="postgres_us", title="CPU of PostgreSQL per event", unit="µs"),
        Measure(key="backend_mb", title="private memory of the processing backends", unit="MB"),
    ),
    measure=measure,
)
