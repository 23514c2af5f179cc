"""Ingest: what the webhook takes in, over HTTP, signed, durable."""

from __future__ import annotations

from billingwatch.lab.isolation.dimension import Dimension, Figures, Measure
from billingwatch.lab.isolation.world import Task
from billingwatch.lab.latency import summarize

OFFERED = 500  # events/s of the open loop, which every arm can take
MEGA = 1_000_000


def measure(task: Task) -> Figures:
    """First event of each tenant, then a closed loop, then an open loop."""
    run = task.books()
    with task.serve("--no-worker") as service, task.load() as load:
        cold = run.sweep(load, service)
        full = run.post("closed loop", load, service, run.phase(service, task.scale.seconds))
        cost = run.costs[-1]
        paced = run.post("open loop", load, service, run.phase(service, task.scale.seconds, rate=OFFERED))
        held = run.memory(service)
    ingest = [each.memory.private for each in held if "ingest" in each.process and each.memory is not None]
    latency = summarize(paced.latencies)
    return {
        "events_per_second": full.rate,
        "cold_per_second": cold.rate,
        **({"p50": latency.p50, "p99": latency.p99} if latency else {}),
        **({"postgres_us": cost.postgres / cost.events * MEGA} if cost.postgres is not None else {}),
        **({"service_us": cost.service / cost.events * MEGA} if cost.service is not None else {}),
        **({"backend_mb": sum(ingest)} if ingest else {}),
    }


DIMENSION = Dimension(
    key="ingest",
    title="Recording events",
    method="The arm's own service is started (no worker), and a process of its own posts signed events of 3.5 KB over 64 connections: one for "
    "each tenant while everything is cold; then as fast as answers come, which finds the rate that is sustained; then "
    f"{OFFERED} events/s at Poisson times whatever the service does, where latency counts from the moment an event was due, so that a stall "
    "is not hidden. Every answer counted is a 200, given after COMMIT. The load shares the cores with the service and PostgreSQL. "
    "Memory is the private memory of the recording backends afterwards.",
    measures=(
        Measure(key="events_per_second", title="acknowledged, closed loop", unit="events/s", better="more", headline=True),
        Measure(key="p50", title=f"p50 at {OFFERED} events/s", unit="ms"),
        Measure(key="p99", title=f"p99 at {OFFERED} events/s", unit="ms", headline=True),
        Measure(key="cold_per_second", title="the first event of each tenant", unit="events/s", better="more"),
        Measure(key="postgres_us", title="CPU of PostgreSQL per event", unit="µs", headline=True),
        Measure(key="service_us", title="CPU of the service per event", unit="µs", better=None),
        Measure(key="backend_mb", title="private memory of the recording backends", unit="MB", headline=True),
    ),
    measure=measure,
    arms=("schema", "pool", "row", "partitioned"),
    choices=("uniform", "zipf"),
)
