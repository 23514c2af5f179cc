"""The `billingwatch` command and how its errors are told."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

import rich_click as click

from billingwatch.cli.output import talk
from billingwatch.errors import BillingWatchError
from billingwatch.logs import configure_logs, drain_logs
from billingwatch.release import release
from billingwatch.settings import load_settings

USAGE_ERROR = 2  # exit code of an error that the caller can mend

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        name: f"billingwatch.cli.{name}"
        for name in (
            "serve",
            "worker",
            "tenants",
            "keys",
            "detectors",
            "mutes",
            "backtest",
            "analysts",
            "migrate",
            "settings",
            "events",
            "simulate",
            "replay",
            "bench",
            "lab",
            "demo",
        )
    }
)
"""Name → module with a command of that name; imported when it is asked for, so that a command does not wait for the others."""


class Commands(click.RichGroup):
    """The commands of COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(release(), prog_name="billingwatch")
def root() -> None:
    """BillingWatch: a billing monitor for many Stripe accounts, one Postgres schema each."""


def run() -> None:
    """Run the command line; an error of ours is one line, its hint the next, exit code 2."""
    try:
        settings = load_settings()
        configure_logs(log_format=settings.log_format, log_level=settings.log_level)
        root(prog_name="billingwatch")
    except BillingWatchError as error:
        drain_logs()
        talk.print(f"error: {error}", markup=False, soft_wrap=True)
        if error.hint:
            talk.print(f"hint: {error.hint}", markup=False, soft_wrap=True)
        sys.exit(USAGE_ERROR)
    except KeyboardInterrupt:
        sys.exit(130)
