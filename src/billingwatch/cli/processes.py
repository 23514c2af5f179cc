"""The processes of `billingwatch serve --workers`: several answer HTTP, one processes; each is restarted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from socket import socket

import structlog
import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from billingwatch.supervision import Pauses

log = structlog.get_logger()

STOP_SECONDS = 30  # that the worker process gets to finish the visits under way


class WorkerProcess:
    """`billingwatch worker`, restarted when it ends."""

    def __init__(self) -> None:
        self._pauses = Pauses()
        self._restart_at: float | None = None
        self._start()

    def check(self) -> None:
        """Restart the process if it has ended and its pause is over. Call this every second or so."""
        code = self._process.poll()
        if code is None:
            return
        now = time.monotonic()
        if self._restart_at is None:
            pause = self._pauses.after(now - self._started_at)
            self._restart_at = now + pause
            log.error("serve.worker_ended", pid=self._process.pid, exit_code=code, restart_in_seconds=pause)
        if now >= self._restart_at:
            self._start()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("serve.worker_killed", pid=self._process.pid, seconds=STOP_SECONDS)
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        self._restart_at = None
        self._started_at = time.monotonic()
        command = [sys.executable, "-P", "-m", "billingwatch", "worker", "--parent", str(os.getpid())]
        self._process = subprocess.Popen(command)


class HttpProcesses(Multiprocess):
    """Uvicorn's processes, with back-off between restarts and a restart also when a start fails."""

    def __init__(self, config: uvicorn.Config, listener: socket, worker: WorkerProcess | None, metrics: Path) -> None:
        super().__init__(config, [listener])
        self.failed = False
        self._worker = worker
        self._metrics = metrics
        self._served = False  # once a process has served, a start that fails is tried again
        self._pauses: dict[int, Pauses] = {}
        self._started_at: dict[int, float] = {}
        self._restart_at: dict[Process, float] = {}

    def keep_subprocess_alive(self) -> None:
        if self._worker is not None:
            self._worker.check()
        for number, process in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            if process in self._restart_at:
                self._restart(number, process)
            elif not process.is_alive(self.config.timeout_worker_healthcheck):
                self._bury(number, process)
            elif not self._served:
                self._served = process.is_ready()

    def _bury(self, number: int, process: Process) -> None:
        process.kill()  # it may hang
        process.join()
        mark_process_dead(process.pid, str(self._metrics))  # type: ignore[no-untyped-call]
        if process.exitcode == STARTUP_FAILURE and not self._served:
            log.error("serve.start_failed", pid=process.pid)
            self.failed = True
            self.should_exit.set()
            return
        now = time.monotonic()
        seconds = now - self._started_at.get(number, float("-inf"))
        pause = self._pauses.setdefault(number, Pauses()).after(seconds)
        code = process.exitcode
        log.error("serve.process_ended", pid=process.pid, exit_code=code, restart_in_seconds=pause)
        self._restart_at[process] = now + pause

    def _restart(self, number: int, ended: Process) -> None:
        if time.monotonic() < self._restart_at[ended]:
            return
        del self._restart_at[ended]
        self._started_at[number] = time.monotonic()
        self.processes[number] = Process(self.config, self.sockets)
        self.processes[number].start()
