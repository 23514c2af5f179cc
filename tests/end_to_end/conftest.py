"""Fixtures: the console script as a process of its own, on an embedded server of its own, as a newcomer runs it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from billingwatch.postgres.embedded import EmbeddedServer

START_SECONDS = 60


class Installation:
    """One data directory and the commands that work on it."""

    def __init__(self, directory: Path, isolation: str) -> None:
        self.directory = directory
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith("BILLINGWATCH_")}
        self.environ |= {"BILLINGWATCH_DATA_DIR": str(directory), "BILLINGWATCH_RATE_LIMIT": "100000", "PYTHONUNBUFFERED": "1"}
        self.environ["BILLINGWATCH_ISOLATION"] = isolation
        if "BILLINGWATCH_POSTGRES_BIN" in os.environ:
            self.environ["BILLINGWATCH_POSTGRES_BIN"] = os.environ["BILLINGWATCH_POSTGRES_BIN"]

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "billingwatch", *arguments]

    def run(self, *arguments: str, input: bytes | None = None, check: bool = True) -> subprocess.CompletedProcess[bytes]:  # noqa: A002
        return subprocess.run(self.command(*arguments), env=self.environ, input=input, capture_output=True, check=check, timeout=100)

    def json(self, *arguments: str, input: bytes | None = None) -> Any:  # noqa: A002
        return json.loads(self.run(*arguments, "--json", input=input).stdout)

    @contextlib.contextmanager
    def serving(self, *arguments: str) -> Iterator[Serving]:
        log = (self.directory / "serve.log").open("ab+")
        start = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(self.command("serve", "--port", "0", *arguments), env=self.environ, stdout=log, stderr=log)
        served = Serving(process, _address(process, Path(log.name), start))
        try:
            # Without a process that processes events a service answers, but is never ready.
            served.await_ready("/health/live" if "--no-worker" in arguments else "/health/ready")
            yield served
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)
            log.close()

    @property
    def postmaster(self) -> int:
        return int((self.directory / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])


class Serving:
    """A running service."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.url = url

    def await_ready(self, path: str = "/health/ready", *, seconds: float = START_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "the service has ended"
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}{path}", timeout=5).status_code == 200:
                    return
            time.sleep(0.1)
        message = "the service is not ready"
        raise TimeoutError(message)


def _address(process: subprocess.Popen[bytes], log: Path, start: int) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        found = re.search(rb"listening on (http://\S+)", log.read_bytes()[start:])
        if found:
            return found[1].decode()
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    message = "the service does not say where it listens"
    raise TimeoutError(message)


@contextlib.contextmanager
def _installation(isolation: str) -> Iterator[Installation]:
    directory = Path(tempfile.mkdtemp(prefix="billingwatch-e2e-"))
    directory.chmod(0o711)  # as root, the server runs as another user, who must get in
    try:
        yield Installation(directory, isolation)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def installation(isolation: str) -> Iterator[Installation]:
    """From nothing: the first command makes the database."""
    with _installation(isolation) as made:
        yield made


@pytest.fixture(scope="module")
def standing(isolation: str) -> Iterator[Installation]:
    """One whose server stays up between the commands of a module's tests."""
    with _installation(isolation) as made:
        binaries = made.environ.get("BILLINGWATCH_POSTGRES_BIN")
        with EmbeddedServer.acquire(made.directory, binaries=Path(binaries) if binaries else None):
            yield made
