"""The command line: parse, call, print. Data on stdout, talk on stderr; an error ends in a hint."""

from __future__ import annotations


def main() -> None:
    """The console script; imports late, so that `--help` answers at once."""
    from billingwatch.cli.root import run  # noqa: PLC0415

    run()
