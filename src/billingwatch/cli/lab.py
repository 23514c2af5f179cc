"""`billingwatch lab`: schema-per-tenant and row-level isolation side by side, and the report of what was measured."""

from __future__ import annotations

from pathlib import Path

import msgspec
import rich_click as click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from billingwatch.cli.output import data, talk
from billingwatch.cli.signals import stop_on_sigterm
from billingwatch.errors import InputInvalid
from billingwatch.lab.isolation.arms import ARMS
from billingwatch.lab.isolation.cell import FULL, QUICK
from billingwatch.lab.isolation.registry import DIMENSIONS
from billingwatch.lab.isolation.report import write_report
from billingwatch.lab.isolation.results import Results
from billingwatch.lab.isolation.run import run_experiment
from billingwatch.logs import configure_logs
from billingwatch.settings import load_settings

TENANTS_MAX = 20_000


@click.group()
def lab() -> None:
    """Compare schema-per-tenant with row-level isolation: the product itself, in both."""


@lab.command()
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Where results are kept; a run goes on there.")
@click.option("--tenants", help=f"Numbers of tenants, with commas.  [default: {','.join(map(str, FULL.tenants))}]")
@click.option("--quick", is_flag=True, help="Few tenants, short phases, two repetitions: within 10 minutes.")
@click.option("--repetitions", type=click.IntRange(1, 100), help=f"How often each cell is measured.  [default: {FULL.repetitions}]")
@click.option("--dimension", "dimensions", multiple=True, type=click.Choice(list(DIMENSIONS)), help="What is measured.  [default: all]")
@click.option("--arm", "arms", multiple=True, type=click.Choice(list(ARMS)), help="What is compared.  [default: all]")
def run(
    *, out: Path, tenants: str | None, quick: bool, repetitions: int | None, dimensions: tuple[str, ...], arms: tuple[str, ...]
) -> None:
    """Measure the cells that OUT does not have yet. It can be broken off, and goes on where it stood."""
    scale = QUICK if quick else FULL
    if tenants:
        scale = msgspec.structs.replace(scale, tenants=_numbers(tenants))
    if repetitions:
        scale = msgspec.structs.replace(scale, repetitions=repetitions)
    configure_logs(log_level="warning")
    stop_on_sigterm()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=talk) as progress:
        task = progress.add_task("measuring", total=None)
        run_experiment(
            load_settings(),
            scale,
            Results(out),
            dimensions=[DIMENSIONS[key] for key in dimensions or DIMENSIONS],
            arms=arms or tuple(ARMS),
            say=lambda words: progress.console.print(words, style="dim", markup=False),
            show=lambda done, size: progress.update(task, completed=done, total=size),
        )


@lab.command()
@click.option(
    "--out",
    "source",
    required=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where `lab run` kept its results.",
)
@click.option("--to", "target", type=click.Path(path_type=Path, file_okay=False), help="Where the report is written.  [default: --out]")
def report(*, source: Path, target: Path | None) -> None:
    """Write report.md and its plots from results."""
    data.print(str(write_report(Results(source), target or source)), markup=False)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number <= TENANTS_MAX for number in numbers):
        raise InputInvalid(reason=f"--tenants takes numbers from 1 to {TENANTS_MAX:,}, with commas between them")
    return numbers
