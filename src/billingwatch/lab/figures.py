"""What a benchmark reports: figures beside their aims, checks that must hold, and the costs behind them."""

from __future__ import annotations

import msgspec

from billingwatch.lab.latency import Latency
from billingwatch.lab.machine import Machine, Memory
from billingwatch.lab.verify import Check


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. `rate` is the offered load of the open loop in events/s."""

    tenants: int
    seconds: float
    rate: float
    zipf: bool
    connections: int
    seed: int


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One number. `met` says whether it reaches the aim; None where there is none, or no number."""

    key: str
    name: str
    value: float | None
    unit: str
    aim: str | None = None
    met: bool | None = None


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """CPU seconds that a phase cost; None where the system does not tell. What `others` used was not there for the run."""

    phase: str
    events: int
    seconds: float
    service: float | None
    postgres: float | None
    load: float
    others: float | None


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """The memory that one process holds at the end."""

    process: str
    memory: Memory | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. `passed` is about the checks; the aims are for the reader."""

    bench: str
    machine: Machine
    postgres: str
    options: Options
    acked: int
    stored: int
    statuses: dict[int, int]
    figures: list[Figure]
    latencies: dict[str, Latency | None]
    costs: list[Cost]
    memory: list[Held]
    checks: list[Check]
    remarks: list[str]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def at_least(key: str, name: str, value: float | None, unit: str, aim: float) -> Figure:
    """A figure that is better the greater it is."""
    return Figure(key=key, name=name, value=value, unit=unit, aim=f"≥ {aim:,g}", met=None if value is None else value >= aim)


def below(key: str, name: str, value: float | None, unit: str, aim: float) -> Figure:
    """A figure that is better the smaller it is."""
    return Figure(key=key, name=name, value=value, unit=unit, aim=f"< {aim:,g}", met=None if value is None else value < aim)


def plain(key: str, name: str, value: float | None, unit: str) -> Figure:
    """A figure for which there is no aim."""
    return Figure(key=key, name=name, value=value, unit=unit)
