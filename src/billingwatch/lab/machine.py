"""What processes cost, read from /proc; on a system without it the figures are left out."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

PROC = Path("/proc")
MB = 1024  # KB

_TICKS = os.sysconf("SC_CLK_TCK")
_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ ...([ps]) ", re.MULTILINE)
_SIZE = re.compile(r"^(Rss|Pss|Private_Clean|Private_Dirty):\s+(\d+) kB$", re.MULTILINE)


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where the figures come from."""

    system: str
    cores: int
    python: str


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Megabytes: all pages mapped, these with shared ones divided among their users, and those that nobody shares or could.

    PostgreSQL's buffers are everybody's, even those that only one backend has used so far.
    """

    rss: float
    pss: float
    private: float


class _Stat(msgspec.Struct, frozen=True):
    name: str
    parent: int
    seconds: float  # with that of children that ended


def this_machine() -> Machine:
    return Machine(system=f"{platform.system()} {platform.release()} {platform.machine()}", cores=cores(), python=platform.python_version())


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_seconds(pid: int | None) -> float | None:
    """CPU time that a process and all its descendants have used so far."""
    stats = _stats()
    if pid is None or pid not in stats:
        return None
    return sum(stats[member].seconds for member in {pid, *_below(pid, stats)})


def descendants(pid: int) -> set[int]:
    """Return the pids of a process's children, and of theirs."""
    return _below(pid, _stats())


def _stats() -> dict[int, _Stat]:
    return {int(entry.name): stat for entry in PROC.glob("[0-9]*") if (stat := _stat(entry)) is not None}


def _below(pid: int, stats: Mapping[int, _Stat]) -> set[int]:
    family: set[int] = set()
    fresh = {pid}
    while fresh:
        fresh = {child for child, stat in stats.items() if stat.parent in fresh}
        family |= fresh
    return family


def busy_seconds() -> float | None:
    """CPU time that this machine has spent on anything so far, with what the host took away from it."""
    try:
        ticks = (PROC / "stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, *interrupts_and_steal = map(int, ticks)
    return (user + nice + system + sum(interrupts_and_steal)) / _TICKS


def memory(pid: int | None) -> Memory | None:
    """Memory of one process; None where it cannot be read."""
    try:
        text = (PROC / str(pid) / "smaps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    rss = pss = private = 0
    _, *parts = _MAPPING.split(text)
    for sharing, sizes in zip(parts[::2], parts[1::2], strict=True):
        found = {name: int(kilobytes) for name, kilobytes in _SIZE.findall(sizes)}
        rss, pss = rss + found["Rss"], pss + found["Pss"]
        if sharing == "p":
            private += found["Private_Clean"] + found["Private_Dirty"]
    return Memory(rss=round(rss / MB, 1), pss=round(pss / MB, 1), private=round(private / MB, 1))


def parent_named(pid: int, name: str) -> int | None:
    """The parent of a process, if both are here and bear `name`: a backend's postmaster, when the database is on this machine."""
    stat = _stat(PROC / str(pid))
    parent = _stat(PROC / str(stat.parent)) if stat is not None and stat.name == name else None
    return stat.parent if stat is not None and parent is not None and parent.name == name else None


def _stat(process: Path) -> _Stat | None:
    try:
        name, _, rest = (process / "stat").read_text(encoding="utf-8", errors="replace").partition("(")[2].rpartition(")")
    except OSError:
        return None
    fields = rest.split()
    return _Stat(name, int(fields[1]), sum(int(ticks) for ticks in fields[11:15]) / _TICKS)


def is_memory_backed(path: Path) -> bool:
    """Whether files there are lost with the power, so that a durable commit costs nothing."""
    try:
        mounts = [line.split() for line in (PROC / "mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return False
    here = [(len(point), kind) for _, point, kind, *_ in mounts if path.resolve().is_relative_to(point)]
    return max(here, default=(0, ""))[1] in {"tmpfs", "ramfs"}
