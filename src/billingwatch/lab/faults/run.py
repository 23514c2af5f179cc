"""All rows: each scenario runs its rounds, and yields a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from billingwatch.lab.faults.disk import MountRefused
from billingwatch.lab.faults.registry import family_of
from billingwatch.lab.faults.row import RoundResult, Row, row_of
from billingwatch.lab.faults.scenario import Need, Scenario
from billingwatch.lab.faults.sites import FaultOptions, Sites
from billingwatch.lab.machine import PROC
from billingwatch.lab.server import ServerFailed
from billingwatch.settings import Settings

Report = Callable[[str], None]


def run_faults(
    settings: Settings,
    scenarios: Sequence[Scenario],
    options: FaultOptions,
    report: Report,
) -> Iterator[Row]:
    """Run scenarios one after the other; yield each row as soon as it is complete."""
    with Sites(settings) as sites:
        for number, scenario in enumerate(scenarios, 1):
            report(f"{number}/{len(scenarios)} {scenario.name}: {scenario.summary}")
            yield _run(sites, scenario, options, report)


def _run(sites: Sites, scenario: Scenario, options: FaultOptions, report: Report) -> Row:
    family = family_of(scenario)
    reason = missing(sites.settings, scenario.needs)
    if reason is not None:
        return Row(name=scenario.name, family=family, skipped=reason)
    results: list[RoundResult] = []
    try:
        for number in range(options.rounds):
            if options.rounds > 1:
                report(f"round {number + 1} of {options.rounds}")
            results.append(sites.run(scenario, options, seed=options.seed * 10_000 + number))
    except MountRefused as error:
        return Row(name=scenario.name, family=family, skipped=str(error))
    except ServerFailed as error:
        sites.clear()
        return Row(
            name=scenario.name,
            family=family,
            ready=False,
            ready_expected=scenario.ready,
            findings=[str(error)],
        )
    row = row_of(scenario, family, results)
    if not row.passed:
        # What a failure left behind must not spoil the next row.
        sites.clear()
    return row


def missing(settings: Settings, needs: Sequence[Need]) -> str | None:
    """Return why a scenario cannot run here, or None."""
    if not PROC.is_dir():
        return "it finds and limits processes by /proc, which is Linux's"
    if "embedded" in needs and settings.database_url is not None:
        return "it stops PostgreSQL, and BILLINGWATCH_DATABASE_URL names a server that is not ours"
    if "schema" in needs and settings.isolation != "schema":
        return "it needs a table of one tenant alone, and BILLINGWATCH_ISOLATION is row"
    return None
