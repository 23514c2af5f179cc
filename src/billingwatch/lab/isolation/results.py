"""Results: one JSON file for each cell that was measured, and one about the machine; what a report is made from."""

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
    """A directory of results."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._cells = directory / "cells"

    def has(self, cell: Cell) -> bool:
        return self._path(cell).exists()

    def keep(self, result: Result) -> None:
        """Write a result; whoever is killed meanwhile leaves no half of one."""
        self._write(self._path(result.cell), result)

    def read(self) -> Iterator[Result]:
        """All results, by the names of their cells."""
        for path in sorted(self._cells.glob("*.json")):
            yield self._read(path, Result)

    @property
    def about(self) -> About | None:
        path = self._directory / ABOUT
        return self._read(path, About) if path.exists() else None

    def begin(self, about: About) -> None:
        """Say what the cells are measured with. InputInvalid when the directory holds cells of another machine, server or scale."""
        known = self.about
        if known is not None and _fixed(known) != _fixed(about):
            raise InputInvalid(
                reason=f"{self._directory} holds results of another machine, PostgreSQL, release or scale", hint="choose another --out"
            )
        self._write(self._directory / ABOUT, about)

    def _path(self, cell: Cell) -> Path:
        return self._cells / f"{cell.key}.json"

    def _write(self, path: Path, value: Result | About) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".part")
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
        os.replace(beside, path)  # noqa: PTH105 - atomic, and said so

    @staticmethod
    def _read(path: Path, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise InputInvalid(reason=f"{path} is not a result: {error}", hint="remove it, and run the lab again") from error


def _fixed(about: About) -> About:
    """What may not change within a directory: tenants may be added."""
    return msgspec.structs.replace(about, scale=msgspec.structs.replace(about.scale, tenants=()))
