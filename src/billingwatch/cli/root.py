"""The `billingwatch` command and how its errors are told."""

from __future__ import annotations

import sys

import rich_click as click

from billingwatch.app import release
from billingwatch.cli.analysts import analysts
from billingwatch.cli.bench import bench
from billingwatch.cli.demo import demo
from billingwatch.cli.events import events
from billingwatch.cli.migrate import migrate
from billingwatch.cli.output import talk
from billingwatch.cli.replay import replay
from billingwatch.cli.serve import serve
from billingwatch.cli.simulate import simulate
from billingwatch.cli.tenants import tenants
from billingwatch.cli.worker import worker
from billingwatch.errors import BillingWatchError
from billingwatch.logs import configure_logs
from billingwatch.settings import load_settings

click.rich_click.TEXT_MARKUP = "markdown"
USAGE_ERROR = 2  # exit code of an error that the caller can mend


@click.group(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "BILLINGWATCH_CLI"})
@click.version_option(release(), prog_name="billingwatch")
def root() -> None:
    """BillingWatch: a billing monitor for many Stripe accounts, one Postgres schema each."""


for command in (serve, worker, tenants, analysts, migrate, events, simulate, replay, bench, demo):
    root.add_command(command)


def run() -> None:
    """Run the command line; an error of ours is one line, its hint the next, exit code 2."""
    try:
        settings = load_settings()
        configure_logs(log_format=settings.log_format, log_level=settings.log_level)
        root(prog_name="billingwatch")
    except BillingWatchError as error:
        talk.print(f"error: {error}", markup=False, soft_wrap=True)
        if error.hint:
            talk.print(f"hint: {error.hint}", markup=False, soft_wrap=True)
        sys.exit(USAGE_ERROR)
    except KeyboardInterrupt:
        sys.exit(130)
