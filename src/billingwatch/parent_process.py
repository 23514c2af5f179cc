"""Child processes that end when their parent is killed, so that no orphan keeps the port or works unsupervised."""

from __future__ import annotations

import os
import signal
import threading
import time

import structlog

log = structlog.get_logger()

CHECK_SECONDS = 0.25  # between two checks that the parent lives
GRACE_SECONDS = 1.0  # that the child gets to end in order


def end_with_parent(parent: int) -> None:
    """Start a thread that ends this process within 2 s when `parent` is no longer its parent."""
    threading.Thread(target=_watch, args=(parent,), name="parent watcher", daemon=True).start()


def _watch(parent: int) -> None:
    # The kernel gives an orphan another parent at once.
    while os.getppid() == parent:
        time.sleep(CHECK_SECONDS)
    log.error("process.parent_ended", parent=parent)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)
