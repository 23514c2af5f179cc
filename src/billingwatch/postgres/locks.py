"""File locks between processes; the kernel lets go of them when their holders die, however they die."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from billingwatch.errors import PostgresUnusable

MUTEX_WAIT = 180  # seconds; covers another process that copies, runs initdb and starts
POLL = 0.05  # seconds


def share(path: Path) -> int | None:
    """Descriptor of a lock that others may share, or None while somebody holds it alone."""
    return _locked(path, fcntl.LOCK_SH)


def hold(path: Path) -> int | None:
    """Descriptor of a lock that nobody shares, or None while anybody has it."""
    return _locked(path, fcntl.LOCK_EX)


@contextlib.contextmanager
def mutex(path: Path) -> Iterator[int]:
    """Hold a lock alone and yield its descriptor; waits for it, and raises PostgresUnusable when that takes too long."""
    deadline = time.monotonic() + MUTEX_WAIT
    while (descriptor := hold(path)) is None:
        if time.monotonic() > deadline:
            raise PostgresUnusable(reason=f"another process has been starting or stopping it for {MUTEX_WAIT} s")
        time.sleep(POLL)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(path: Path, kind: int) -> int | None:
    # Descriptors of Python are close-on-exec: no child keeps a lock unless it is handed over.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
