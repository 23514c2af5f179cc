"""Neighbours: what one tenant does to all others."""

from __future__ import annotations

import asyncio
import threading

from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.world import Task
from billingwatch.lab.latency import summarize
from billingwatch.lab.load import Outcome
from billingwatch.lab.load_process import LoadProcess
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.scope import tenant_scope

sql = load_statements(__file__, "neighbour.sql")

OFFERED = 100  # events/s of the bystanders
TIMES = 10  # as many events from the one that is noisy; together about half of what the service can take
ANALYSTS = 2
LOCKED = 0.5  # share of a phase for which somebody holds a lock


def measure(task: Task) -> Figures:
    """The bystanders' latency alone, beside a writer, beside heavy questions, beside a lock."""
    run = task.books()
    seconds = task.scale.seconds
    with task.serve("--no-worker") as service, task.load() as load, task.load() as noise:
        run.sweep(load, service)

        def beside(*work: threading.Thread, first: int = 1) -> Outcome:
            load.prepare(run.phase(service, seconds, rate=OFFERED, first=first))
            for each in work:
                each.start()
            load.start()
            outcome = load.finish()
            for each in work:
                each.join()
            return outcome

        alone = beside()
        noise.prepare(run.phase(service, seconds, rate=OFFERED * TIMES, last=1))
        writer = beside(threading.Thread(target=_send, args=(noise,)))
        analysts = beside(*(threading.Thread(target=_ask, args=(task, seconds)) for _ in range(ANALYSTS)))
        # The first tenant goes on sending, as a tenant does whose table is locked: its events may hold up those of others.
        locked = beside(threading.Thread(target=_lock, args=(task, seconds * LOCKED)), first=0)
    return {
        **{
            key: latency.p99
            for key, outcome in {"alone": alone, "writer": writer, "analysts": analysts, "locked": locked}.items()
            if (latency := summarize(_of_others(outcome))) is not None
        },
        "refused": _refused(locked),
    }


def _refused(outcome: Outcome) -> float:
    """Percent of the bystanders' events that were not acknowledged."""
    refused = sum(1 for tenant, _ in outcome.unacked if tenant)
    return 100 * refused / max(refused + len(_of_others(outcome)), 1)


def _of_others(outcome: Outcome) -> list[float]:
    return [latency for tenant, latency in zip(outcome.tenants, outcome.latencies, strict=True) if tenant]


def _send(noise: LoadProcess) -> None:
    noise.start()
    noise.finish()


def _ask(task: Task, seconds: float) -> None:
    async def ask() -> None:
        end = asyncio.get_running_loop().time() + seconds
        async with task.stage.control() as connection:
            while asyncio.get_running_loop().time() < end:
                async with tenant_scope(connection, task.members[0], readonly=True) as tenant:
                    await tenant.fetch(sql["heavy"])

    asyncio.run(ask())


def _lock(task: Task, seconds: float) -> None:
    async def lock() -> None:
        async with task.stage.control() as connection, connection.transaction():
            await connection.execute(sql["lock"].format(schema=task.members[0].schema_name))
            await asyncio.sleep(seconds)

    asyncio.run(lock())


DIMENSION = Dimension(
    key="neighbour",
    title="Noisy neighbours",
    method=f"All tenants but the first send {OFFERED} events/s at Poisson times; their p99 counts from when an event was due. First alone; then beside the "
    f"first tenant, which sends {TIMES} times as many by itself; then beside {ANALYSTS} sessions that ask heavy questions of the first tenant's charges "
    f"without a pause; then, with the first tenant sending as the others do, while somebody holds an exclusive lock on its `events` for {LOCKED:.0%} of the "
    "phase, as a migration that rewrites the table would; what is answered 503 then comes again later in Stripe's way, and is counted as refused.",
    measures=(
        Measure(key="alone", title="p99 alone", unit="ms"),
        Measure(key="writer", title="p99 beside a writer", unit="ms", headline=True),
        Measure(key="analysts", title="p99 beside heavy questions", unit="ms", headline=True),
        Measure(key="locked", title="p99 beside a lock on one tenant's table", unit="ms"),
        Measure(key="refused", title="refused beside a lock on one tenant's table", unit="% of events", headline=True),
    ),
    measure=measure,
    fewest=2,
)
