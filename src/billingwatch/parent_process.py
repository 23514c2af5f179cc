"""Child processes that end when their parent is killed, so that none of them keeps the port or works without a supervisor."""

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
    """Watch from a thread that process `parent` is this one's parent, and end this process within 2 s when it is not."""
    threading.Thread(target=_watch, args=(parent,), name="parent watcher", daemon=True).start()


def _watch(parent: int) -> None:
    # The kernel gives an orphan another parent at once.
    while os.getppid() == parent:
        time.sleep(CHECK_SECONDS)
    log.error("process.parent_ended", parent=parent)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)
