"""`bench pipeline`: how many events a second are recorded, projected and looked at, and how long one takes from Stripe to its verdict."""

from __future__ import annotations

import asyncio

import msgspec

from billingwatch.lab.backlog import Drained, Look, drain, processing_times, watch
from billingwatch.lab.figures import Figure, Options, Report, at_least, below, plain
from billingwatch.lab.latency import summarize
from billingwatch.lab.load import Outcome
from billingwatch.lab.load_process import LoadProcess
from billingwatch.lab.run import Run, Say
from billingwatch.lab.server import ServerProcess
from billingwatch.lab.stage import open_stage
from billingwatch.lab.verify import check_processing, check_recording, gather_posted, look
from billingwatch.settings import Settings

PATIENCE = 20  # times the length of a phase, that its backlog may take
GRACE = 2.0  # seconds that the last events of the paced phase get before anyone asks whether they are done

AIM_EVENTS = 1000  # events/s recorded and processed
AIM_VERDICT = 1000  # ms from due to processed at low load


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """All phases of a run, and what was seen of the backlog."""

    cold: Outcome
    full: Outcome
    drained: Drained
    paced: Outcome
    looks: list[Look]


def bench_pipeline(settings: Settings, options: Options, say: Say) -> Report:
    """Set up, measure until nothing waits, compare, clear away."""
    with open_stage(settings) as stage:
        run = Run(stage, options, say)
        fleet = run.provision(options.tenants)
        with stage.serve() as service, LoadProcess([member.target for member in fleet.members]) as load:
            measured = _measure(run, load, service)
            memory = run.memory(service)
        say("comparing what was acknowledged with what is stored and projected")
        found = asyncio.run(look(stage, charges=True))
    outcomes = [measured.cold, measured.full, measured.paced]
    times = processing_times(measured.paced, measured.looks)
    return run.report(
        "pipeline",
        figures=_figures(options, measured, times),
        latencies={
            "acknowledgement, closed loop": summarize(measured.full.latencies),
            f"acknowledgement, {options.rate:,g} events/s": summarize(measured.paced.latencies),
            f"to processed, {options.rate:,g} events/s": summarize(times),
        },
        memory=memory,
        checks=[*check_recording(gather_posted(fleet.members, outcomes), found), *check_processing(found)],
        outcomes=outcomes,
        stored=found.stored.total(),
    )


def _measure(run: Run, load: LoadProcess, service: ServerProcess) -> Measured:
    options = run.options
    patience = max(options.seconds * PATIENCE, 60)
    run.say("the first event of each tenant")
    cold = run.sweep(load, service)
    asyncio.run(drain(run.stage, patience))
    run.say("closed loop, and then until nothing waits")
    load.prepare(run.phase(service, options.seconds))
    with run.booked("closed loop and its backlog", service) as bill:
        load.start()
        full = bill.add(load.finish())
        drained = asyncio.run(drain(run.stage, patience))
    run.say(f"open loop at {options.rate:,g} events/s")
    load.prepare(run.phase(service, options.seconds, rate=options.rate))
    load.start()
    looks = asyncio.run(watch(run.stage, options.seconds + GRACE))
    paced = load.finish()
    return Measured(cold=cold, full=full, drained=drained, paced=paced, looks=looks)


def _figures(options: Options, measured: Measured, times: list[float]) -> list[Figure]:
    full, drained = measured.full, measured.drained
    processed = backlog_rate = None
    if drained.ended is not None:
        processed = full.acked / (drained.ended - full.began)
        backlog_rate = drained.events / (drained.ended - drained.began)
    verdict = summarize(times)
    low = f"event to verdict at {options.rate:,g} events/s"
    return [
        at_least("processed_per_second", f"recorded and processed, {options.tenants:,} tenants", processed, "events/s", AIM_EVENTS),
        plain("recorded_per_second", "recorded meanwhile, until the load ended", full.rate, "events/s"),
        plain("backlog", "waiting when the load ended", drained.events, "events"),
        plain("backlog_per_second", "processed after that, alone", backlog_rate, "events/s"),
        plain("verdict_p50", f"{low}: p50", verdict.p50 if verdict else None, "ms"),
        below("verdict_p99", f"{low}: p99", verdict.p99 if verdict else None, "ms", AIM_VERDICT),
        plain("verdict_max", f"{low}: max", verdict.max if verdict else None, "ms"),
    ]
