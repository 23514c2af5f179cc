"""`bench ingest`: how many events a second the service acknowledges, how long it takes, and how that compares with the floors.

The arms take turns in rounds, so that a machine that slows down slows all of them; a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import asyncio
from statistics import median

import msgspec
import uvloop

from billingwatch.lab.figures import Figure, Options, Report, at_least, below, plain
from billingwatch.lab.fleet import Fleet
from billingwatch.lab.floors import Written, make_flat, write_flat
from billingwatch.lab.latency import Latency, summarize
from billingwatch.lab.load import Outcome
from billingwatch.lab.load_process import LoadProcess
from billingwatch.lab.run import Run, Say
from billingwatch.lab.server import ServerProcess
from billingwatch.lab.stage import open_stage
from billingwatch.lab.verify import check_recording, check_waiting, gather_posted, look
from billingwatch.settings import Settings

ROUNDS = 3
ROUND_SECONDS = 2.0  # shorter ones are noise: a short run has one round
FLOOR_SECONDS = 3.0  # of each floor in a round, at most

AIM_EVENTS = 2500  # events/s on 2 cores that the load shares
AIM_OF_FLAT = 0.25
AIM_OF_ONE_TENANT = 0.8
AIM_P99 = 50  # ms at 1,000 events/s
AIM_PROVISION = 25  # ms per tenant


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """The arms of one round."""

    many: Outcome
    one: Outcome
    flat: Written
    idle: Outcome


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """All phases of a run."""

    cold: Outcome
    rounds: list[Round]
    paced: Outcome

    @property
    def recorded(self) -> list[Outcome]:
        """The phases whose events must be found in the database."""
        return [self.cold, *(outcome for one_round in self.rounds for outcome in (one_round.many, one_round.one)), self.paced]


def bench_ingest(settings: Settings, options: Options, say: Say) -> Report:
    """Set up, measure, compare what was acknowledged with what is stored, clear away."""
    with open_stage(settings) as stage:
        run = Run(stage, options, say)
        fleet = run.provision(options.tenants + 1)  # the last sends alone, for the comparison
        asyncio.run(make_flat(stage))
        with (
            stage.serve("--no-worker") as service,
            ServerProcess(["billingwatch.lab.idle"], stage.environ, stage.directory / "idle.log") as idle,
            LoadProcess([member.target for member in fleet.members]) as load,
        ):
            measured = _measure(run, load, service, idle)
            memory = run.memory(service)
        say("comparing what was acknowledged with what is stored")
        found = asyncio.run(look(stage))
    posted = gather_posted(fleet.members, measured.recorded)
    return run.report(
        "ingest",
        figures=_figures(options, fleet, measured),
        latencies=_latencies(options, measured),
        memory=memory,
        checks=[*check_recording(posted, found), check_waiting(found)],
        outcomes=measured.recorded,
        stored=found.stored.total(),
    )


def _measure(run: Run, load: LoadProcess, service: ServerProcess, idle: ServerProcess) -> Measured:
    options = run.options
    run.say("the first event of each tenant")
    cold = run.sweep(load, service)
    count = ROUNDS if options.seconds >= ROUNDS * ROUND_SECONDS else 1
    rounds: list[Round] = []
    for number in range(count):
        run.say(f"closed loop, round {number + 1} of {count}: {options.tenants:,} tenants, one tenant, the floors")
        rounds.append(_round(run, load, service, idle, options.seconds / count))
    run.say(f"open loop at {options.rate:,g} events/s")
    paced = run.post(
        f"open loop, {options.rate:,g} events/s", load, service, run.phase(service, options.seconds, rate=options.rate, last=-1)
    )
    return Measured(cold=cold, rounds=rounds, paced=paced)


def _round(run: Run, load: LoadProcess, service: ServerProcess, idle: ServerProcess, seconds: float) -> Round:
    short = min(seconds, FLOOR_SECONDS)
    many = run.post(f"closed loop, {run.options.tenants:,} tenants", load, service, run.phase(service, seconds, last=-1))
    with run.booked("flat table") as bill:
        flat = uvloop.run(write_flat(run.stage, short, seed=run.next_seed()))
        bill.events, bill.load = flat.rows, flat.cpu_seconds
    one = run.post("closed loop, one tenant", load, service, run.phase(service, seconds, first=-1))
    nothing = run.post("closed loop, idle handler", load, idle, run.phase(idle, short))
    return Round(many=many, one=one, flat=flat, idle=nothing)


def _figures(options: Options, fleet: Fleet, measured: Measured) -> list[Figure]:
    rounds = measured.rounds
    paced = summarize(measured.paced.latencies)
    tenants, load = f"{options.tenants:,} tenants", f"open loop at {options.rate:,g} events/s"
    return [
        at_least("events_per_second", f"acknowledged, {tenants}", median(each.many.rate for each in rounds), "events/s", AIM_EVENTS),
        at_least("of_flat", "of the flat table's rate", median(each.many.rate / each.flat.rate for each in rounds), "×", AIM_OF_FLAT),
        at_least(
            "of_one_tenant", "of one tenant's rate", median(each.many.rate / each.one.rate for each in rounds), "×", AIM_OF_ONE_TENANT
        ),
        plain("of_idle", "of the idle handler's rate", median(each.many.rate / each.idle.rate for each in rounds), "×"),
        plain("one_tenant_per_second", "acknowledged, one tenant", median(each.one.rate for each in rounds), "events/s"),
        plain("flat_per_second", "floor: flat table, 64 rows an INSERT", median(each.flat.rate for each in rounds), "events/s"),
        plain("idle_per_second", "floor: Litestar handler that does nothing", median(each.idle.rate for each in rounds), "requests/s"),
        plain("cold_per_second", f"first events of {tenants}", measured.cold.rate, "events/s"),
        plain("open_p50", f"{load}: p50", paced.p50 if paced else None, "ms"),
        below("open_p99", f"{load}: p99", paced.p99 if paced else None, "ms", AIM_P99),
        plain("open_max", f"{load}: max", paced.max if paced else None, "ms"),
        below("provision", "provisioning, per tenant, sustained", fleet.seconds_each * 1000, "ms", AIM_PROVISION),
        plain("provision_last", "provisioning, last tenth over first tenth", fleet.slowing, "×"),
    ]


def _latencies(options: Options, measured: Measured) -> dict[str, Latency | None]:
    many = [latency for each in measured.rounds for latency in each.many.latencies]
    one = [latency for each in measured.rounds for latency in each.one.latencies]
    return {
        f"closed loop, {options.tenants:,} tenants": summarize(many),
        "closed loop, one tenant": summarize(one),
        f"open loop, {options.rate:,g} events/s": summarize(measured.paced.latencies),
    }
