"""`billingwatch migrate`: bring the control plane and every tenant to this release's revision."""

from __future__ import annotations

import sys

import rich_click as click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from billingwatch.cli.output import print_json, talk
from billingwatch.cli.session import Session, run_session
from billingwatch.tenancy.migrate import Migrated, count_tenants_behind, migrate_tenants


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def migrate(*, as_json: bool) -> None:
    """Migrate the control plane, then every tenant that is behind; one that fails is reported and the others go on."""

    async def work(session: Session) -> list[Migrated]:
        behind = await count_tenants_behind(session.control)
        columns = (TextColumn("migrating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        done: list[Migrated] = []
        with Progress(*columns, console=talk, disable=not behind) as progress:
            task = progress.add_task("", total=behind)
            async for result in migrate_tenants(session.control):
                done.append(result)
                progress.advance(task)
        return done

    done = run_session(work, upgrade=True)
    failed = [result for result in done if result.error is not None]
    if as_json:
        print_json(done)
    else:
        talk.print(f"{len(done) - len(failed)} tenants migrated, {len(failed)} failed" if done else "everything is at head")
        for result in failed:
            talk.print(f"{result.name}: {result.error}", markup=False)
    if failed:
        sys.exit(1)
