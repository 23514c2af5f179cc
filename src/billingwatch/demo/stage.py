"""The operator's part: a service with a data directory of its own, three tenants, an analyst."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from billingwatch.errors import BillingWatchError
from billingwatch.postgres.connections import ControlConnection, open_connection
from billingwatch.postgres.database import Database, open_database
from billingwatch.settings import Settings
from billingwatch.tenancy.migrate import ensure_control_plane
from billingwatch.tenancy.provision import Provisioned, provision
from billingwatch.tenancy.sealing import open_seal

T = TypeVar("T")

START_SECONDS = 30
DEMO_RATE = 2000  # events per second and tenant: weeks of history arrive in seconds


class DemoRunning(BillingWatchError):
    """another demo runs in {directory}"""

    hint = "stop it, or set BILLINGWATCH_DATA_DIR to another directory"


class ServiceNotStarted(BillingWatchError):
    """the service did not start; its log is {log}"""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """A running service and how to reach it."""

    settings: Settings
    database: Database
    url: str

    def with_control(self, work: Callable[[ControlConnection], Awaitable[T]]) -> T:
        """Run `work` on the control plane."""

        async def run() -> T:
            connection = await open_connection(self.database.dsn, "billingwatch demo")
            try:
                await ensure_control_plane(
                    ControlConnection(connection), isolation=self.settings.isolation, partitions=self.settings.partitions
                )
                return await work(ControlConnection(connection))
            finally:
                await connection.close()

        return asyncio.run(run())

    def provision(self, name: str) -> tuple[Provisioned, str]:
        """Provision a tenant with a signing secret of its own: (what provisioning printed, the secret)."""
        secret = f"whsec_{secrets.token_urlsafe(24)}"
        seal = open_seal(self.settings)
        return self.with_control(lambda control: provision(control, seal, name, secrets=[secret])), secret


@contextlib.contextmanager
def set_stage(settings: Settings, *, port: int) -> Iterator[Stage]:
    """Start from nothing in `<data dir>/demo`: a database, a service on a port; everything stops when the block ends."""
    directory = settings.data_dir / "demo"
    for made in (settings.data_dir, directory):
        if not made.exists():
            made.mkdir(parents=True)
            made.chmod(0o711)  # started by root, the server runs as another user, who must get in
    with _alone(directory):
        own = msgspec.structs.replace(settings, data_dir=directory, database_url=None)
        _clear(own, directory)
        listening = _free_port(port)
        with open_database(own) as database:
            log = directory / "serve.log"
            environ = os.environ | {
                "BILLINGWATCH_DATA_DIR": str(directory),
                "BILLINGWATCH_RATE_LIMIT": str(DEMO_RATE),
                "BILLINGWATCH_PUBLIC_URL": f"http://127.0.0.1:{listening}",
            }
            environ.pop("BILLINGWATCH_DATABASE_URL", None)
            with log.open("wb") as output, _service(listening, environ, output) as process:
                _await_ready(process, listening, log)
                yield Stage(settings=own, database=database, url=f"http://127.0.0.1:{listening}")


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    with (directory / "demo.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DemoRunning(directory=directory) from error
        yield


def _clear(settings: Settings, directory: Path) -> None:
    if (directory / "postgres" / "data").exists():
        # A demo that was killed may have left its server running: adopt it, and be the last to let go.
        with contextlib.suppress(BillingWatchError), open_database(settings):
            pass
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != "demo.lock":
            entry.unlink()


@contextlib.contextmanager
def _service(port: int, environ: dict[str, str], output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-P", "-m", "billingwatch", "serve", "--port", str(port)]
    # A session of its own: Ctrl-C reaches the demo alone, which then stops the service in order.
    process = subprocess.Popen(command, env=environ, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _await_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == http.client.OK:
                return
        time.sleep(0.1)
    raise ServiceNotStarted(log=log)


def _free_port(wanted: int) -> int:
    """The wanted port, or one that the system hands out when it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found: int = probe.getsockname()[1]
                return found
    return wanted
