"""How commands speak: rich tables and sentences for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table

talk = Console(stderr=True, highlight=False)
data = Console(highlight=False, soft_wrap=True)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    sys.stdout.buffer.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> None:
    """A table on stdout; columns are as wide as the terminal allows, unlimited in a pipe."""
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console = data if data.is_terminal else Console(highlight=False, width=240)
    console.print(table)


def print_facts(facts: Sequence[tuple[str, object]]) -> None:
    """Name and value on a line each, the values unwrapped so that they can be copied."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        sys.stdout.write(f"{name:<{width}}  {_cell(value)}\n")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return str(value)
