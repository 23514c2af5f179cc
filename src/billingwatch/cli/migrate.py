"""`billingwatch migrate`: bring the control plane and every tenant to this release's revision, or back by one."""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import ExitStack

import rich_click as click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from billingwatch.cli.output import as_json, print_facts, print_json, print_table, talk
from billingwatch.cli.session import Session, run_session
from billingwatch.cli.signals import stop_on_sigterm
from billingwatch.errors import InputInvalid
from billingwatch.tenancy.fleet import Outcome, migrate_fleet
from billingwatch.tenancy.fleet_plan import Options, Plan, plan_fleet
from billingwatch.tenancy.migrate import take_back_control_plane

FAILURES_SHOWN = 10


@click.command()
@click.option(
    "--jobs", default=2, show_default=True, type=click.IntRange(1, 64), envvar="BILLINGWATCH_CLI_JOBS", help="Tenants migrated at once."
)
@click.option(
    "--canary",
    default=1,
    show_default=True,
    type=click.IntRange(0),
    envvar="BILLINGWATCH_CLI_CANARY",
    help="Tenants migrated first, one by one; if one fails, the run stops.",
)
@click.option(
    "--tenant", "tenants", multiple=True, metavar="NAME", envvar="BILLINGWATCH_CLI_TENANT", help="Only this tenant; can be repeated."
)
@click.option("--dry-run", is_flag=True, envvar="BILLINGWATCH_CLI_DRY_RUN", help="Say what would be migrated, and change nothing.")
@click.option(
    "--max-failures",
    default=20,
    show_default=True,
    type=click.IntRange(1),
    envvar="BILLINGWATCH_CLI_MAX_FAILURES",
    help="Failed tenants after which no further one is begun.",
)
@click.option(
    "--downgrade",
    type=click.Choice(["tenant", "control"]),
    envvar="BILLINGWATCH_CLI_DOWNGRADE",
    help="Take the last revision back: every tenant's, or the control plane's.",
)
@as_json
def migrate(
    jobs: int, canary: int, tenants: tuple[str, ...], max_failures: int, downgrade: str | None, *, dry_run: bool, as_json: bool
) -> None:
    """Migrate the control plane, then every tenant that is behind.

    A tenant that fails is left as it was and reported, and the others go on; run it again to try those that are left. It can be stopped
    and killed at any time. Exits with 1 when a tenant failed or was not tried.
    """
    stop_on_sigterm()
    if downgrade == "control":
        if dry_run or tenants:
            raise InputInvalid(reason="the control plane is taken back at once, without --tenant and --dry-run")
        _take_back_control_plane(as_json=as_json)
        return
    back = downgrade is not None

    def options(session: Session) -> Options:
        return Options(
            jobs=jobs,
            canary=canary,
            max_failures=max_failures,
            names=tenants,
            back=back,
            isolation=session.settings.isolation,
            partitions=session.settings.partitions,
            tenants_limit=session.settings.lane_tenants,
        )

    if dry_run:
        _show_plan(run_session(lambda session: plan_fleet(session.control, options(session)), prepare=False), as_json=as_json)
        return

    columns = (TextColumn("migrating"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    progress = Progress(*columns, console=talk)
    bar = progress.add_task("", rate="")

    async def work(session: Session) -> tuple[Outcome, float]:
        began = time.monotonic()
        with ExitStack() as stack:

            def show(settled: int, total: int) -> None:
                if settled == 0:  # A run with nothing to do shows no bar.
                    stack.enter_context(progress)
                progress.update(bar, completed=settled, total=total, rate=f"{settled / (time.monotonic() - began):,.0f} tenants/s")

            outcome = await migrate_fleet(session.control, session.dsn, options(session), show)
        return outcome, time.monotonic() - began

    outcome, seconds = run_session(work, prepare=False)
    _show_outcome(outcome, seconds, as_json=as_json)
    if len(outcome.results) - len(outcome.failed) < outcome.total:
        sys.exit(1)


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    print_facts([("control plane", _way(plan.control_from, plan.control_to)), ("tenants", f"{len(plan.tenants):,} to migrate")])
    ways = Counter((_way(each.from_revision, each.to_revision), "online" if each.online else "") for each in plan.tenants)
    if ways:
        print_table(["revision", "tenants", ""], [(way, f"{count:,}", how) for (way, how), count in sorted(ways.items())])
    for each in plan.tenants:
        if each.error is not None:
            talk.print(f"{each.name} failed the last time: {each.error}", markup=False, soft_wrap=True)


def _show_outcome(outcome: Outcome, seconds: float, *, as_json: bool) -> None:
    failed, untried = outcome.failed, outcome.total - len(outcome.results)
    migrated = len(outcome.results) - len(failed)
    if as_json:
        print_json(
            {
                "control_from": outcome.control_from,
                "control_to": outcome.control_to,
                "migrated": migrated,
                "failed": len(failed),
                "not_tried": untried,
                "stopped_by": outcome.stopped_by,
                "seconds": round(seconds, 3),
                "tenants": outcome.results,
            }
        )
        return
    if outcome.control_from != outcome.control_to:
        talk.print(f"control plane: {_way(outcome.control_from, outcome.control_to)}")
    if outcome.total == 0:
        talk.print("every tenant is where it should be")
        return
    if outcome.together:
        said = f"all tenants together {'failed' if failed else 'migrated'}"
    else:
        left = f", {untried:,} not tried" if untried else ""
        said = f"{migrated:,} tenant{'' if migrated == 1 else 's'} migrated, {len(failed):,} failed{left}"
    talk.print(f"{said}, in {seconds:.1f} s")
    for result in failed[:FAILURES_SHOWN]:
        talk.print(f"{result.name}: {result.error}", markup=False, soft_wrap=True)
    if len(failed) > FAILURES_SHOWN:
        talk.print(f"and {len(failed) - FAILURES_SHOWN:,} more; `billingwatch migrate --dry-run` lists them")
    if outcome.stopped_by == "canary":
        talk.print("hint: the first tenant failed, so no other was touched; mend the cause and run it again", markup=False, soft_wrap=True)
    elif outcome.stopped_by == "max_failures":
        talk.print("hint: too many failed; mend the cause, or raise --max-failures, and run it again", markup=False, soft_wrap=True)
    elif outcome.together and failed:
        talk.print("hint: mend the cause and run it again", markup=False, soft_wrap=True)
    elif failed:
        talk.print("hint: mend the cause and run it again; the other tenants are done", markup=False, soft_wrap=True)


def _take_back_control_plane(*, as_json: bool) -> None:
    revision = run_session(lambda session: take_back_control_plane(session.control), prepare=False)
    if as_json:
        print_json({"control_to": revision})
    else:
        talk.print(f"control plane: now at {revision}")


def _way(start: str | None, end: str) -> str:
    return end if start == end else f"{start or 'nothing'} → {end}"
