"""`billingwatch worker`: process recorded events in a process of its own; several share the lanes."""

from __future__ import annotations

import asyncio
import signal

import rich_click as click

from billingwatch.cli.output import talk
from billingwatch.clock import utc_now
from billingwatch.postgres.database import open_database
from billingwatch.settings import load_settings
from billingwatch.worker import processing


@click.command()
def worker() -> None:
    """Process recorded events, until stopped."""
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
