"""The fleet's migration: what one change of the tables takes for all tenants, idle and while events come in."""

from __future__ import annotations

import asyncio
import time

from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.world import Task
from billingwatch.lab.latency import summarize
from billingwatch.lab.releases import Change, new_column, releases_to_come
from billingwatch.tenancy.fleet import migrate_fleet
from billingwatch.tenancy.fleet_plan import Options

OFFERED = 200  # events/s while it runs
HEADSTART = 0.2  # of the load's seconds, that pass before the migration begins
STEPS = {
    "column": new_column("lab"),
    "backfill": Change("op.execute('UPDATE events SET lab = type')", "pass"),
    "index": Change("op.create_index('events_lab_idx', 'events', ['lab'])", "op.drop_index('events_lab_idx', 'events')"),
}


def measure(task: Task) -> Figures:
    """Step by step up, then back to where it was, then a column under load."""
    with releases_to_come(task.stage.directory) as releases:
        figures = {"nothing": asyncio.run(_migrate(task))}
        for key, change in STEPS.items():
            releases.add(change)
            figures[key] = asyncio.run(_migrate(task))
        for _ in STEPS:
            asyncio.run(_migrate(task, back=True))
            releases.drop()
        releases.add(STEPS["column"])
        figures |= _loaded(task)
        asyncio.run(_migrate(task, back=True))
    return figures


def _loaded(task: Task) -> Figures:
    run = task.books()
    with task.serve("--no-worker") as service, task.load() as load:
        run.sweep(load, service)
        load.prepare(run.phase(service, task.scale.seconds, rate=OFFERED))
        load.start()
        time.sleep(task.scale.seconds * HEADSTART)
        began = time.monotonic()
        took = asyncio.run(_migrate(task))
        outcome = load.finish()
    during = summarize(outcome.latencies_between(began, began + took))
    return {"loaded": took, "refused": float(len(outcome.unacked)), **({"loaded_p99": during.p99} if during else {})}


async def _migrate(task: Task, *, back: bool = False) -> float:
    """Seconds. RuntimeError when a tenant was not migrated: then there is nothing to compare."""
    async with task.stage.control() as control:
        began = time.monotonic()
        outcome = await migrate_fleet(control, task.stage.dsn, Options(back=back, isolation=task.arm.isolation))
        took = time.monotonic() - began
    if len(outcome.results) - len(outcome.failed) < outcome.total:
        message = f"not every tenant was migrated: {[result.error for result in outcome.failed][:3]}"
        raise RuntimeError(message)
    return took


DIMENSION = Dimension(
    key="migration",
    title="Migrating the fleet",
    method="The product's fleet runner, two jobs, brings all tenants from one revision to the next: nothing to do; ADD COLUMN to `events`; UPDATE of the new "
    "column in every row; CREATE INDEX on it; all are taken back again. Then ADD COLUMN once more while "
    f"{OFFERED} events/s come in, whose p99 counts those that were due while the migration ran, from when they were due.",
    measures=(
        Measure(key="nothing", title="nothing to do", unit="s"),
        Measure(key="column", title="ADD COLUMN", unit="s", headline=True),
        Measure(key="backfill", title="UPDATE of every event", unit="s"),
        Measure(key="index", title="CREATE INDEX", unit="s"),
        Measure(key="loaded", title="ADD COLUMN while events come in", unit="s"),
        Measure(key="loaded_p99", title="acknowledgement's p99 meanwhile", unit="ms", headline=True),
        Measure(key="refused", title="events refused meanwhile", unit="events"),
    ),
    measure=measure,
    once_from=10_000,
)
