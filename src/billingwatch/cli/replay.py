"""`billingwatch replay`: feed a file of events to a tenant."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
import rich_click as click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from billingwatch.cli.event_files import read_events
from billingwatch.cli.output import as_json, print_json, talk
from billingwatch.cli.session import Session, run_session
from billingwatch.clock import utc_now
from billingwatch.replay import Replay, Replayed

REFUSED_SHOWN = 10


@click.command()
@click.argument("tenant")
@click.argument("file", type=click.Path(exists=True, allow_dash=True, path_type=Path))
@as_json
def replay(tenant: str, file: Path, *, as_json: bool) -> None:
    """Feed FILE to TENANT through record, project and detect.

    FILE holds one event per line, as `billingwatch simulate` writes it, indented events, a JSON array or Stripe's list. It may be
    compressed with gzip, or a directory of such files; `-` is stdin. The order of events does not matter. Events that the tenant has
    are left as they are, so a replay can be repeated. A file with a line that is not JSON is refused as a whole.
    """
    entries = read_events(file)
    events = [entry.body for entry in entries]
    began = time.monotonic()

    async def work(session: Session) -> Replayed:
        found = await session.tenant(tenant)
        columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
        with Progress(*columns, console=talk) as progress:
            task = progress.add_task("", total=len(events), rate="")

            def show(state: Replayed) -> None:
                rate = f"{state.read / (time.monotonic() - began):,.0f} events/s"
                progress.update(task, completed=min(state.read, len(events)), rate=rate)

            return await Replay(session.dsn, found, utc_now, statement_timeout=session.settings.statement_timeout).run(events, show)

    done = run_session(work)
    seconds = time.monotonic() - began
    if as_json:
        print_json({**msgspec.structs.asdict(done), "seconds": round(seconds, 3), "events_per_second": round(done.read / seconds, 1)})
    else:
        talk.print(
            f"{done.recorded:,} recorded, {done.duplicates:,} known before, {done.ignored:,} of the other mode or thin, "
            f"{done.dead:,} not projectable, {len(done.refused):,} refused; {done.read / seconds:,.0f} events/s"
        )
        for refused in done.refused[:REFUSED_SHOWN]:
            talk.print(f"{entries[refused.number - 1].place}: {refused.reason}", markup=False)
    for detector, since in sorted(done.behind.items()):
        talk.print(
            f"{detector} is behind: it has evaluated nothing after {since:%Y-%m-%d %H:%M} UTC; a running service continues", markup=False
        )
    if done.refused:
        sys.exit(1)
