"""`bench migrate`: how long the fleet's migration takes, idle and while events come in, and that it costs none of them.

Each migration adds a column to the table that ingest writes, by a revision of a schema directory of the run's own and through the real runner.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median

import msgspec

from billingwatch.lab.backlog import drain
from billingwatch.lab.figures import Figure, Options, Report, below, plain
from billingwatch.lab.fleet import Fleet
from billingwatch.lab.latency import summarize
from billingwatch.lab.load import OK, Outcome
from billingwatch.lab.load_process import LoadProcess
from billingwatch.lab.releases import Releases, new_column, releases_to_come
from billingwatch.lab.run import Run, Say
from billingwatch.lab.server import ServerProcess
from billingwatch.lab.stage import Stage, open_stage
from billingwatch.lab.verify import Check, check_processing, check_recording, gather_posted, look
from billingwatch.postgres.statements import load_statements
from billingwatch.settings import Settings
from billingwatch.tenancy import fleet_plan
from billingwatch.tenancy.fleet import migrate_fleet
from billingwatch.tenancy.isolation import checked_schema_name

sql = load_statements(__file__, "migrate.sql")

ROUNDS = 3  # of idle migrations and their floor
COLUMNS = [f"bench_{number + 1}" for number in range(ROUNDS + 1)]  # one more under load
FLOOR_CHUNK = 500  # tenants; PostgreSQL has room for so many locks of one transaction
HEADSTART = 0.2  # of the load's seconds, that pass before the migration begins
PATIENCE = 20  # times the load's seconds, that its backlog may take

AIM_IDLE = 2  # s for 1,000 tenants
AIM_LOADED = 10  # s
AIM_NOTHING = 1  # s


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """A run over the fleet. Times are CLOCK_MONOTONIC's."""

    began: float
    ended: float
    tenants: int
    failed: int
    attempts: int

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """All that was measured."""

    floors: list[float]
    idle: list[Migration]
    back: Migration
    nothing: Migration
    loaded: Migration
    cold: Outcome
    load: Outcome

    @property
    def migrations(self) -> list[Migration]:
        return [*self.idle, self.back, self.loaded]


def bench_migrate(settings: Settings, options: Options, say: Say) -> Report:
    """Set up, measure, compare what was acknowledged with what is stored, clear away."""
    with open_stage(settings) as stage:
        run = Run(stage, options, say)
        fleet = run.provision(options.tenants)
        with releases_to_come(stage.directory) as releases:
            floors, idle, back, nothing = asyncio.run(_measure_idle(run, fleet, releases))
            with stage.serve() as service, LoadProcess([member.target for member in fleet.members]) as load:
                cold, outcome, loaded = _measure_loaded(run, load, service, releases)
                memory = run.memory(service)
            say("comparing what was acknowledged with what is stored and projected")
            found = asyncio.run(look(stage, charges=True))
            without = asyncio.run(_tenants_without(stage, COLUMNS))
    measured = Measured(floors=floors, idle=idle, back=back, nothing=nothing, loaded=loaded, cold=cold, load=outcome)
    if loaded.ended > outcome.ended:
        run.remarks.append("the load ended before the migration did: ask for more --seconds")
    posted = gather_posted(fleet.members, [cold, outcome])
    return run.report(
        "migrate",
        figures=_figures(options, measured),
        latencies={
            f"acknowledgement, {options.rate:,g} events/s, before the migration": summarize(outcome.latencies_between(0, loaded.began)),
            "acknowledgement, events due while it ran": summarize(outcome.latencies_between(loaded.began, loaded.ended)),
        },
        memory=memory,
        checks=[*_checks(measured, without), *check_recording(posted, found), *check_processing(found)],
        outcomes=[cold, outcome],
        stored=found.stored.total(),
    )


async def _measure_idle(run: Run, fleet: Fleet, releases: Releases) -> tuple[list[float], list[Migration], Migration, Migration]:
    floors: list[float] = []
    idle: list[Migration] = []
    for number, column in enumerate(COLUMNS[:ROUNDS], start=1):
        run.say(f"idle, round {number} of {ROUNDS}: the bare SQL, the runner")
        floors.append(await _bare(run.stage, fleet, f"floor_{number}"))
        releases.add(new_column(column))
        idle.append(await _migrate(run.stage))
    run.say("nothing to do; the last revision taken back and taken again")
    nothing = await _migrate(run.stage)
    back = await _migrate(run.stage, back=True)
    await _migrate(run.stage)
    return floors, idle, back, nothing


def _measure_loaded(run: Run, load: LoadProcess, service: ServerProcess, releases: Releases) -> tuple[Outcome, Outcome, Migration]:
    options = run.options
    run.say("the first event of each tenant")
    cold = run.sweep(load, service)
    patience = max(options.seconds * PATIENCE, 60)
    asyncio.run(drain(run.stage, patience))
    run.say(f"open loop at {options.rate:,g} events/s, and a migration meanwhile")
    releases.add(new_column(COLUMNS[-1]))
    load.prepare(run.phase(service, options.seconds, rate=options.rate))
    with run.booked("load and migration", service) as bill:
        load.start()
        time.sleep(options.seconds * HEADSTART)
        migration = asyncio.run(_migrate(run.stage))
        outcome = bill.add(load.finish())
    asyncio.run(drain(run.stage, patience))
    return cold, outcome, migration


async def _migrate(stage: Stage, *, back: bool = False) -> Migration:
    async with stage.control() as control:
        began = time.monotonic()
        outcome = await migrate_fleet(control, stage.dsn, fleet_plan.Options(back=back))
        return Migration(
            began=began,
            ended=time.monotonic(),
            tenants=outcome.total,
            failed=outcome.total - len(outcome.results) + len(outcome.failed),
            attempts=sum(result.attempts for result in outcome.results),
        )


async def _bare(stage: Stage, fleet: Fleet, column: str) -> float:
    schemas = [checked_schema_name(member.schema_name) for member in fleet.members]
    async with stage.control() as control:
        began = time.monotonic()
        for start in range(0, len(schemas), FLOOR_CHUNK):
            await control.execute(
                "; ".join(f"ALTER TABLE {schema}.events ADD COLUMN {column} text" for schema in schemas[start : start + FLOOR_CHUNK])
            )
        return time.monotonic() - began


async def _tenants_without(stage: Stage, columns: list[str]) -> int:
    async with stage.control() as control:
        without: int = await control.fetchval(sql["tenants_without"], columns)
    return without


def _checks(measured: Measured, without: int) -> list[Check]:
    failed = sum(migration.failed for migration in measured.migrations)
    errors = sum(times for status, times in measured.load.statuses.items() if status != OK)
    return [
        Check(name="no tenant's migration failed", passed=failed == 0, detail=f"{failed:,} failed"),
        Check(name="every tenant has every column", passed=without == 0, detail=f"{without:,} without"),
        Check(name="no delivery was refused meanwhile", passed=errors == 0, detail=f"{measured.load.acked:,} acknowledged, {errors:,} not"),
    ]


def _figures(options: Options, measured: Measured) -> list[Figure]:
    tenants = f"{options.tenants:,} tenants"
    idle, floor = median(each.seconds for each in measured.idle), median(measured.floors)
    loaded = measured.loaded
    during = summarize(measured.load.latencies_between(loaded.began, loaded.ended))
    return [
        below("idle", f"ADD COLUMN, {tenants}, idle", idle, "s", AIM_IDLE),
        below("loaded", f"ADD COLUMN, {tenants}, at {options.rate:,g} events/s", loaded.seconds, "s", AIM_LOADED),
        below("nothing", f"nothing to do, {tenants}", measured.nothing.seconds, "s", AIM_NOTHING),
        plain("floor", "floor: the bare ALTER TABLE statements", floor, "s"),
        plain("of_floor", "idle over the floor", idle / floor, "×"),
        plain("back", "DROP COLUMN by --downgrade, idle", measured.back.seconds, "s"),
        plain("retries", "tenants tried again because their tables were in use", loaded.attempts - loaded.tenants, "attempts"),
        plain("during_p99", "acknowledgement of events due meanwhile: p99", during.p99 if during else None, "ms"),
        plain("during_max", "acknowledgement of events due meanwhile: max", during.max if during else None, "ms"),
    ]
