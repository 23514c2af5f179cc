"""`billingwatch bench`: measure this machine, and check that speed costs no event."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import rich_click as click

from billingwatch.cli.bench_detection import detection
from billingwatch.cli.bench_faults import faults
from billingwatch.cli.output import as_json, print_json, print_table, talk
from billingwatch.cli.signals import stop_on_sigterm
from billingwatch.lab.figures import Cost, Figure, Options, Report
from billingwatch.lab.ingest import bench_ingest
from billingwatch.lab.latency import Latency
from billingwatch.lab.machine import cores
from billingwatch.lab.migrate import bench_migrate
from billingwatch.lab.pipeline import bench_pipeline
from billingwatch.lab.run import Say
from billingwatch.settings import Settings, load_settings

WHOLE = 100  # figures from here on are shown without decimals

F = TypeVar("F", bound=Callable[..., object])


@click.group()
def bench() -> None:
    """Measure how many events a second this machine takes, how long a fleet's migration does, and how often the detectors are right.

    A run has its own data directory (or a database of its own on the server of BILLINGWATCH_DATABASE_URL), its own service and its own load
    process, on the loopback. It exits with 1 when an acknowledged event was lost, doubled or misplaced, whatever the speed.
    """


bench.add_command(detection)
bench.add_command(faults)


def _options(rate: float, rate_help: str) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for option in reversed(
            (
                click.option("--tenants", default=1000, show_default=True, type=click.IntRange(1, 20_000), help="Tenants to provision."),
                click.option(
                    "--seconds", default=15.0, show_default=True, type=click.FloatRange(0.5, 600), help="How long each phase takes."
                ),
                click.option("--rate", default=rate, show_default=True, type=click.FloatRange(1, 100_000), help=rate_help),
                click.option("--zipf", is_flag=True, help="Draw tenants by Zipf's law, exponent 1.1, instead of uniformly."),
                click.option(
                    "--connections", default=128, show_default=True, type=click.IntRange(1, 1000), help="Connections of the load process."
                ),
                click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Which tenants send, and when."),
                as_json,
            )
        ):
            command = option(command)
        return command

    return decorate


@bench.command()
@_options(1000, "Offered load of the open loop, in events/s.")
def ingest(*, as_json: bool, **options: float) -> None:
    """Measure recording alone: the service runs with `--no-worker`."""
    _run(bench_ingest, as_json=as_json, **options)


@bench.command()
@_options(50, "Offered load while latency is measured, in events/s.")
def pipeline(*, as_json: bool, **options: float) -> None:
    """Measure recording and processing together: until every event is projected and looked at."""
    _run(bench_pipeline, as_json=as_json, **options)


@bench.command()
@_options(200, "Offered load while the fleet is migrated, in events/s.")
def migrate(*, as_json: bool, **options: float) -> None:
    """Measure the fleet's migration: idle, with nothing to do, and while events are recorded and processed."""
    _run(bench_migrate, as_json=as_json, **options)


def _run(run: Callable[[Settings, Options, Say], Report], *, as_json: bool, **options: object) -> None:
    stop_on_sigterm()
    report = run(load_settings(), Options(**options), lambda words: talk.print(words, style="dim", markup=False))  # type: ignore[arg-type]
    if as_json:
        print_json({**{field: getattr(report, field) for field in report.__struct_fields__}, "passed": report.passed})
    else:
        _print(report)
    if not report.passed:
        sys.exit(1)


def _print(report: Report) -> None:
    machine, options = report.machine, report.options
    print_table(
        ["what", "figure", "unit", "aim", ""],
        [(figure.name, _number(figure.value), figure.unit, figure.aim or "", _verdict(figure)) for figure in report.figures],
        title=f"bench {report.bench}: {options.tenants:,} tenants, {'Zipf(1.1)' if options.zipf else 'uniform'}, {options.connections} connections; "
        f"{machine.cores} cores, {machine.system}, Python {machine.python}, PostgreSQL {report.postgres}\n",
    )
    print_table(
        ["\nlatency in ms", "\np50", "\np99", "\nmax"], [(name, *_milliseconds(latency)) for name, latency in report.latencies.items()]
    )
    print_table(
        ["\nCPU per event in µs", "\nevents", "\nservice", "\nPostgreSQL", "\nload", "\nall cores: in use", "\nby others"],
        [
            (cost.phase, cost.events, *(_micros(part, cost.events) for part in (cost.service, cost.postgres, cost.load)), *_shares(cost))
            for cost in report.costs
        ],
    )
    print_table(
        ["\nmemory in MB", "\nRSS", "\nPSS", "\nprivate"],
        [
            (held.process, *((held.memory.rss, held.memory.pss, held.memory.private) if held.memory else (None,) * 3))
            for held in report.memory
        ],
    )
    print_table(["\ncheck", "", ""], [(check.name, "PASS" if check.passed else "FAIL", check.detail) for check in report.checks])
    for remark in report.remarks:
        talk.print(remark, style="yellow", markup=False)


def _verdict(figure: Figure) -> str:
    return "" if figure.met is None else "met" if figure.met else "not met"


def _number(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:,.0f}" if abs(value) >= WHOLE else f"{value:,.2f}"


def _milliseconds(latency: Latency | None) -> tuple[str | None, ...]:
    return (None,) * 3 if latency is None else tuple(f"{value:,.1f}" for value in (latency.p50, latency.p99, latency.max))


def _shares(cost: Cost) -> tuple[str | None, str | None]:
    """How much of the machine was used, and how much of it by other programs."""
    parts = (cost.service, cost.postgres, cost.load, cost.others)
    if None in parts:
        return None, None
    available = cost.seconds * cores()
    return f"{sum(part or 0 for part in parts) / available:.0%}", f"{(cost.others or 0) / available:.0%}"


def _micros(seconds: float | None, events: int) -> str | None:
    return None if seconds is None or not events else f"{seconds / events * 1e6:,.0f}"
