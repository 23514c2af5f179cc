"""`billingwatch bench detection`: measure how often the detectors are right."""

from __future__ import annotations

from pathlib import Path

import msgspec
import rich_click as click
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from billingwatch.cli.output import as_json, data, print_json, print_table, talk
from billingwatch.cli.signals import stop_on_sigterm
from billingwatch.lab.quality.plan import THINGS
from billingwatch.lab.quality.report import Report, Wish, detection_report
from billingwatch.lab.quality.words import headline, markdown, tables, verdicts
from billingwatch.logs import configure_logs
from billingwatch.settings import load_settings
from billingwatch.simulate.profiles import PROFILES

QUICK_KINDS = ("tiny", "saas", "shop")


@click.command()
@click.option(
    "--seeds",
    default=2,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Quiet accounts of each kind of business; as many with incidents as these need come on top.",
)
@click.option("--weeks", default=8, show_default=True, type=click.IntRange(1, 52), help="Length of a stream.")
@click.option(
    "--kinds",
    "kinds",
    multiple=True,
    type=click.Choice(list(PROFILES)),
    help="Kind of business; may be given several times.  [default: all]",
)
@click.option(
    "--incidents",
    "incidents",
    multiple=True,
    type=click.Choice(THINGS),
    help="What goes wrong; may be given several times.  [default: all]",
)
@click.option("--quick", is_flag=True, help=f"One quiet account each of {', '.join(QUICK_KINDS)}, each incident once.")
@click.option("--tuning", is_flag=True, help="Seeds to look at while detectors are changed; never those of the report.")
@click.option("--processes", default=0, type=click.IntRange(0, 64), help="Streams at a time.  [default: one for each core]")
@as_json
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write report.json and report.md into this directory, too.")
def detection(
    *,
    seeds: int,
    weeks: int,
    kinds: tuple[str, ...],
    incidents: tuple[str, ...],
    quick: bool,
    tuning: bool,
    processes: int,
    as_json: bool,
    out: Path | None,
) -> None:
    """Measure how often the detectors are right, on simulated accounts whose incidents are known.

    Each stream of events goes through recording, projection and detection as it would in the service, on a clock that runs with the
    stream, and beside it through plain rules with fixed numbers. Some streams are quiet, the others have every kind of incident, from
    faint to loud.
    """
    wish = Wish(
        rounds=1 if quick else seeds,
        weeks=weeks,
        kinds=kinds or (QUICK_KINDS if quick else tuple(PROFILES)),
        incidents=incidents or THINGS,
        tuning=tuning,
        repeats=1 if quick else 2,
        processes=processes,
    )
    configure_logs(log_level="warning")
    stop_on_sigterm()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=talk) as progress:
        task = progress.add_task("living through the streams", total=1.0)
        report = detection_report(load_settings(), wish, lambda done, size: progress.update(task, completed=done, total=size))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        (out / "report.md").write_text(markdown(report) + "\n", encoding="utf-8")
    if as_json:
        print_json(report)
    else:
        _print(report)


def _print(report: Report) -> None:
    data.print(headline(report), markup=False)
    for title, columns, rows in tables(report):
        print_table(columns, rows, title=f"\n{title}")
    for verdict in verdicts(report):
        talk.print(verdict, style="yellow", markup=False)
