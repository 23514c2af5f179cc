"""A server under test: a process of its own that says on stderr where it listens, and ends with the block."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from billingwatch.errors import BillingWatchError

START_WAIT = 60.0  # seconds
STOP_WAIT = 30.0  # seconds; the service finishes what it has begun
POLL = 0.02  # seconds

_LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")
_LINES_SHOWN = 15


class ServerFailed(BillingWatchError):
    """the server under test failed: {reason}"""


class ServerProcess:
    """`python -m` with the given arguments; what it says goes to `log`."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as file:
            # A session of its own: Ctrl-C reaches the bench alone, which then ends its processes in order.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", *arguments],
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.port = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        try:
            self._wait_until_it_listens()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_WAIT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            said = _LISTENING.search(self._words())
            if said is not None and _accepts(int(said[1])):
                self.port = int(said[1])
                return
            time.sleep(POLL)
        raise ServerFailed(reason=self.last_words())

    def last_words(self) -> str:
        """The end of its log: why it failed."""
        return "\n".join(self._words().splitlines()[-_LINES_SHOWN:])

    def _words(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_WAIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _accepts(port: int) -> bool:
    """Whether connections are accepted, which a server does when its start is complete."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
