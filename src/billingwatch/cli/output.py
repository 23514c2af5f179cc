"""How commands speak: rich tables and sentences for people, JSON for programs."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table

from billingwatch.errors import OutputLost

talk = Console(stderr=True, highlight=False)
data = Console(highlight=False, soft_wrap=True)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    with _written():
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
        sys.stdout.buffer.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> None:
    """A table on stdout; columns are as wide as the terminal allows, unlimited in a pipe."""
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console = data if data.is_terminal else Console(highlight=False, width=240)
    with _written():
        console.print(table)


def print_facts(facts: Sequence[tuple[str, object]]) -> None:
    """Name and value on a line each, the values unwrapped so that they can be copied."""
    width = max(len(name) for name, _ in facts)
    with _written():
        for name, value in facts:
            sys.stdout.write(f"{name:<{width}}  {_cell(value)}\n")
        sys.stdout.flush()


@contextmanager
def _written() -> Iterator[None]:
    """Raise OutputLost for what stdout refuses. A closed pipe is left to click, which ends the command."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - at exit Python flushes what is left
        raise OutputLost(reason=error.strerror or str(error)) from error


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return str(value)
