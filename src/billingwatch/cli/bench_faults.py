"""`billingwatch bench faults`: strike a running service, and check that it loses and doubles nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec
import rich_click as click

from billingwatch.cli.output import as_json, data, print_json, print_table, talk
from billingwatch.cli.signals import stop_on_sigterm
from billingwatch.lab.faults.registry import FAMILIES, SCENARIOS
from billingwatch.lab.faults.row import ANSWERED_AIM, P50_AIM, Row
from billingwatch.lab.faults.run import run_faults
from billingwatch.lab.faults.sites import FaultOptions
from billingwatch.logs import configure_logs
from billingwatch.settings import load_settings


@click.command()
@click.option(
    "--only",
    "names",
    multiple=True,
    type=click.Choice(list(SCENARIOS)),
    metavar="NAME",
    help="Run this fault; may be given several times.  [default: all]",
)
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(1, 1000), help="Rounds of each.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 600),
    help="Length of each fault.  [default: of each its own, see --list]",
)
@click.option("--quick", is_flag=True, help="Shorter faults, and only those that take 5 s at most.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Which events are sent.")
@click.option("--list", "listing", is_flag=True, help="List the faults, and run none.")
@as_json
def faults(
    *,
    names: tuple[str, ...],
    rounds: int,
    seconds: float | None,
    quick: bool,
    seed: int,
    listing: bool,
    as_json: bool,
) -> None:
    """Strike a running service while signed events arrive, and check that it loses and doubles nothing.

    Each row starts the product's own service, sends 40 signed events a second to 6 tenants, and applies one
    fault. What was not acknowledged is sent again afterwards. An acknowledged event must be stored once and
    processed once; /health/ready must be 503 while events are refused, 200 otherwise, and answer within 2 s.

    It exits with 1 when a row fails.
    """
    if listing:
        _list(as_json=as_json)
        return
    offered = [each for each in SCENARIOS.values() if each.quick is not None or not quick]
    chosen = [each for each in SCENARIOS.values() if each.name in names] if names else offered
    configure_logs(log_level="error")
    stop_on_sigterm()
    options = FaultOptions(rounds=rounds, seconds=seconds, quick=quick, seed=seed)
    rows = list(run_faults(load_settings(), chosen, options, _report))
    passed = all(row.passed for row in rows)
    if as_json:
        facts = [{**msgspec.to_builtins(row), "passed": row.passed} for row in rows]
        print_json({"rows": facts, "passed": passed})
    else:
        _print(rows)
    if not passed:
        sys.exit(1)


def _report(words: str) -> None:
    talk.print(words, style="dim", markup=False, soft_wrap=True)


def _list(*, as_json: bool) -> None:
    facts = [
        {
            "name": each.name,
            "family": family,
            "summary": each.summary,
            "seconds": each.seconds,
            "quick": each.quick,
            "ready": each.ready,
        }
        for family, scenarios in FAMILIES.items()
        for each in scenarios
    ]
    if as_json:
        print_json(facts)
    else:
        rows = [(fact["name"], fact["seconds"], fact["quick"], fact["summary"]) for fact in facts]
        print_table(["fault", "s", "quick", "what happens"], rows)


def _print(rows: Sequence[Row]) -> None:
    ran = [row for row in rows if row.skipped is None]
    print_table(
        ["fault", "rounds", "acked", "stored", "processed", "lost", "doubled", "longest s", "ready"],
        [
            (
                row.name,
                row.rounds,
                row.acked,
                row.stored,
                row.processed,
                row.lost,
                row.doubled,
                f"{row.silence:.1f}",
                "yes" if row.ready else "NO",
            )
            for row in ran
        ],
    )
    attacks = [row for row in ran if row.p50_factor is not None]
    if attacks:
        print_table(
            ["\nattack", "\np50 ms before", "\np50 ×", "\nanswered"],
            [
                (
                    row.name,
                    f"{(row.p50_before or 0) * 1000:.1f}",
                    f"{row.p50_factor:.1f}",
                    f"{row.answered:.1%}",
                )
                for row in attacks
            ],
        )
        data.print(f"aims: p50 × at most {P50_AIM:g}, answered at least {ANSWERED_AIM:.0%}", markup=False)
    for row in ran:
        if not row.passed:
            data.print(f"\n{row.name}: FAIL", style="red", markup=False)
            for finding in row.findings:
                data.print(f"  {finding}", markup=False)
            if not row.ready:
                data.print(f"  ready should be: {row.ready_expected}", markup=False)
    for row in rows:
        if row.skipped is not None:
            talk.print(f"{row.name}: skipped, {row.skipped}", style="yellow", markup=False)
