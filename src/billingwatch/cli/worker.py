"""`billingwatch worker`: process recorded events in a process of its own; several share the lanes."""

from __future__ import annotations

import asyncio
import signal

import rich_click as click

from billingwatch.cli.output import talk
from billingwatch.clock import utc_now
from billingwatch.logs import protect_stderr
from billingwatch.parent_process import end_with_parent
from billingwatch.postgres.database import open_database
from billingwatch.settings import load_settings
from billingwatch.worker import processing


@click.command()
@click.option("--parent", type=int, hidden=True, help="End with the process of this id.")
def worker(parent: int | None) -> None:
    """Process recorded events, until stopped."""
    protect_stderr()
    if parent is not None:
        end_with_parent(parent)
    settings = load_settings()
    with open_database(settings) as database, database.kept_up():

        async def run() -> None:
            stop = asyncio.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            async with processing(settings, database.dsn, utc_now):
                talk.print("processing")
                await stop.wait()

        asyncio.run(run())
