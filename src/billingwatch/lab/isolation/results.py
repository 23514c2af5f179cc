"""Results: a line of JSON for each cell that was measured, and a file about the machine; what a report is made from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from billingwatch.errors import InputInvalid
from billingwatch.lab.isolation.cell import Cell, Scale
from billingwatch.lab.machine import Machine

T = TypeVar("T")

ABOUT = "about.json"
CELLS = "cells.jsonl"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A cell's figures; `seconds` is what measuring took."""

    cell: Cell
    figures: dict[str, float]
    began_at: datetime
    seconds: float


class About(msgspec.Struct, frozen=True, kw_only=True):
    """Where and with what a run was measured; cells of one directory agree in it."""

    machine: Machine
    postgres: str
    settings: dict[str, str]
    """PostgreSQL's, where they differ from its own defaults."""
    release: str
    scale: Scale


class Results:
    """A directory of results: `cells.jsonl` has a line for each cell, written when it was measured."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / CELLS
        self._results = {result.cell.key: result for result in self._lines()}

    def has(self, cell: Cell) -> bool:
        return cell.key in self._results

    def keep(self, result: Result) -> None:
        """Write a result; whoever is killed meanwhile leaves half a line, which counts for nothing."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.truncate(_whole(self._path.read_bytes()))
            file.write(msgspec.json.encode(result) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._results[result.cell.key] = result

    def read(self) -> Iterator[Result]:
        """All results, by the names of their cells."""
        return (self._results[key] for key in sorted(self._results))

    @property
    def about(self) -> About | None:
        path = self._directory / ABOUT
        return _decode(path.read_bytes(), str(path), About) if path.exists() else None

    def begin(self, about: About) -> None:
        """Say what the cells are measured with. InputInvalid when the directory holds cells of another machine, server or scale."""
        known = self.about
        if known is not None and _fixed(known) != _fixed(about):
            raise InputInvalid(
                reason=f"{self._directory} holds results of another machine, PostgreSQL, release or scale", hint="choose another --out"
            )
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / ABOUT).write_bytes(msgspec.json.format(msgspec.json.encode(about), indent=1) + b"\n")

    def _lines(self) -> Iterator[Result]:
        text = self._path.read_bytes() if self._path.exists() else b""
        for number, line in enumerate(text[: _whole(text)].splitlines(), 1):
            yield _decode(line, f"line {number} of {self._path}", Result)


def _whole(text: bytes) -> int:
    """Up to where there are whole lines."""
    return text.rfind(b"\n") + 1


def _decode(text: bytes, what: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputInvalid(reason=f"{what} is not a result: {error}", hint="remove it, and run the lab again") from error


def _fixed(about: About) -> About:
    """What may not change within a directory: tenants and repetitions may be added."""
    return msgspec.structs.replace(about, scale=msgspec.structs.replace(about.scale, tenants=(), repetitions=0))
