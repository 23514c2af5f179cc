"""The service's own processes in one layout. They keep their port over restarts."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from billingwatch.lab.faults.scenario import Layout
from billingwatch.lab.load import HOST
from billingwatch.lab.machine import descendants
from billingwatch.lab.server import STOP_WAIT, ServerFailed

START_WAIT = 60.0  # seconds
RESTART_WAIT = 15.0  # seconds; a supervisor such as systemd keeps trying for longer
RESTART_PAUSE = 0.5  # seconds
POLL = 0.05  # seconds
LINES_SHOWN = 8
FILES = 1024  # descriptors: the usual soft limit of a service, whatever this shell's is

_ARGUMENTS: Mapping[Layout, tuple[str, ...]] = {
    "serve": (),
    "split": ("--no-worker",),
    "workers": ("--workers", "2"),
}


class Deployment:
    """Started at once. Each process leads a group of its own, which ends with the deployment.

    A leader that was killed stays a zombie until then, so its process group id cannot belong to a stranger.
    """

    def __init__(
        self,
        layout: Layout,
        environ: Mapping[str, str],
        log: Path,
        *,
        launcher: str,
        output: int | None,
    ) -> None:
        self.layout = layout
        self.port = _free_port()
        self._environ = environ
        self._log = log
        self._launcher = launcher
        self._output = output
        self._leaders: list[subprocess.Popen[bytes]] = []
        self.service = self._start_service()
        self.worker = self._start("worker") if layout == "split" else None

    @property
    def worker_child(self) -> int:
        """The pid of the `worker` process that `serve --workers 2` started."""
        for pid in descendants(self.service.pid):
            with contextlib.suppress(OSError):
                if "worker" in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0"):
                    return pid
        raise ServerFailed(reason="`serve --workers 2` has no `worker` process")

    @property
    def running(self) -> bool:
        return not _ended(self.service) and (self.worker is None or not _ended(self.worker))

    def await_listening(self) -> None:
        """Wait until the port accepts connections. ServerFailed when the process ends before."""
        deadline = time.monotonic() + START_WAIT
        while time.monotonic() < deadline and not _ended(self.service):
            if _accepts(self.port):
                return
            time.sleep(POLL)
        raise ServerFailed(reason=self.last_lines())

    def restart_service(self) -> bool:
        """Start the service again until a process stays up; False when none does within RESTART_WAIT."""
        deadline = time.monotonic() + RESTART_WAIT
        while time.monotonic() < deadline:
            self.service = self._start_service()
            while not _ended(self.service):
                if _LISTENING in self._written()[self._mark :] and _accepts(self.port):
                    return True
                time.sleep(POLL)
            time.sleep(RESTART_PAUSE)
        return False

    def restart_worker(self) -> None:
        self.worker = self._start("worker")

    def last_lines(self) -> str:
        return "\n".join(self._written().decode(errors="replace").splitlines()[-LINES_SHOWN:])

    def stop(self) -> None:
        """End every process of every group that this deployment started."""
        for leader in self._leaders:
            if not _ended(leader):
                leader.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_WAIT
        for leader in self._leaders:
            while not _ended(leader) and time.monotonic() < deadline:
                time.sleep(POLL)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader.pid, signal.SIGKILL)
            leader.wait()
        self._leaders.clear()

    def _start_service(self) -> subprocess.Popen[bytes]:
        self._mark = self._log.stat().st_size if self._log.exists() else 0
        return self._start("serve", "--port", str(self.port), *_ARGUMENTS[self.layout])

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as file:
            target = file.fileno() if self._output is None else self._output
            leader = subprocess.Popen(
                [sys.executable, "-P", "-m", self._launcher, *arguments],
                env=dict(self._environ),
                stdin=subprocess.DEVNULL,
                stdout=target,
                stderr=target,
                start_new_session=True,
            )
        self._leaders.append(leader)
        _, hard = resource.prlimit(leader.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(leader.pid, resource.RLIMIT_NOFILE, (min(FILES, hard), hard))
        return leader

    def _written(self) -> bytes:
        return self._log.read_bytes() if self._log.exists() else b""


_LISTENING = b"listening on http://"


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Return whether the process has ended, without reaping it."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
