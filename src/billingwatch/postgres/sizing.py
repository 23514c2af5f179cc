"""Sizing: how much memory the embedded server may take for itself, by what the machine, or the container, has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

MB = 1024**2
GB = 1024 * MB
CGROUP = Path("/sys/fs/cgroup/memory.max")

BUFFERS_SHARE = 8  # one in so many bytes; the system's own cache serves the rest
BUFFERS_LEAST, BUFFERS_MOST = 128 * MB, 2 * GB
ROOMY = 4 * GB  # from where on 60 MB for a table of locks do not matter


def sized(memory: int | None = None) -> Mapping[str, str]:
    """PostgreSQL's settings for `memory` bytes, by default those of this machine.

    Every tenant that writes keeps pages of its own in use, and a dump of ten thousand tenants takes 100,000 locks.
    """
    memory = machine_memory() if memory is None else memory
    buffers = min(max(memory // BUFFERS_SHARE, BUFFERS_LEAST), BUFFERS_MOST)
    return {
        "max_locks_per_transaction": "1024" if memory >= ROOMY else "256",
        "shared_buffers": f"{buffers // MB}MB",
    }


def machine_memory(cgroup: Path = CGROUP) -> int:
    """Bytes that this machine has, or that its container may use."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(memory, int(cgroup.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no container, or one without a limit
        return memory
