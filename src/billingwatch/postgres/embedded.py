"""The embedded server: one PostgreSQL under a data directory, started by the first process that needs it, stopped by the last."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self
from urllib.parse import quote

import structlog

from billingwatch.errors import PostgresUnusable
from billingwatch.postgres.account import Account, server_account
from billingwatch.postgres.binaries import find_binaries
from billingwatch.postgres.cluster import DATABASE, HOST, ROLE, Cluster, prepare_cluster, write_whole
from billingwatch.postgres.locks import POLL, hold, mutex, share
from billingwatch.postgres.postmaster import Child, find_postmaster, start_postmaster, stop_postmaster

START_WAIT = 60  # seconds; covers crash recovery, and the backends of a killed server, which finish their statement
RETRY_PAUSE = 0.5  # seconds
IN_USE = "processes that cannot be seen from here still use the data: those of a killed server, or a server in another container"

log = structlog.get_logger()


class EmbeddedServer:
    """A share in the server: it runs as long as anybody, in any process, holds one."""

    host = HOST

    def __init__(self, cluster: Cluster, settings: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._settings = settings
        self._share: int | None = None
        self.port = 0
        self.psql = cluster.binaries.directory / "psql"

    @classmethod
    def acquire(cls, data_dir: Path, *, binaries: Path | None = None, settings: Mapping[str, str] = MappingProxyType({})) -> EmbeddedServer:
        """Start the server in `data_dir`, or adopt the one that runs there; blocks until it answers, raises PostgresUnusable."""
        home = data_dir.resolve() / "postgres"
        with _faults(home):
            account = server_account(home)
            _make_home(home, account)
            with mutex(home / "lock"):
                server = cls(prepare_cluster(home, account, find_binaries(home, binaries, account)), settings)
                server._bring_up()
                server._share = share(home / "users")
        return server

    @property
    def dsn(self) -> str:
        return self.dsn_for(DATABASE)

    def dsn_for(self, database: str) -> str:
        return f"postgresql://{ROLE}:{self._cluster.password}@{self.host}:{self.port}/{quote(database, safe='')}"

    def revive(self) -> None:
        """Start the server again if it has died under us; `port` and `dsn` may be others then."""
        with _faults(self._cluster.home), mutex(self._cluster.home / "lock"):
            self._bring_up()

    def release(self) -> None:
        """Give the share back, and stop the server when it was the last; a second call does nothing."""
        if self._share is None:
            return
        home = self._cluster.home
        with _faults(home), mutex(home / "lock"):
            os.close(self._share)
            self._share = None
            alone = hold(home / "users")
            if alone is None:
                return
            os.close(alone)
            stopped = stop_postmaster(self._cluster.data)
        log.info("postgres.stopped" if stopped else "postgres.stops_slowly", port=self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.release()

    def _bring_up(self) -> None:
        """Under the mutex: adopt a server that answers, and start one whenever there is none."""
        deadline = time.monotonic() + START_WAIT
        child: Child | None = None
        trouble = ""
        try:
            while time.monotonic() < deadline:
                found = find_postmaster(self._cluster.data)
                if found is not None and found.ready:
                    trouble = self._cluster.greet(found.port)
                    if not trouble:
                        if child:
                            log.info("postgres.started", pid=found.pid, port=found.port)
                        else:  # what every command beside a running service does
                            log.debug("postgres.adopted", pid=found.pid, port=found.port)
                        self.port = found.port
                        return
                elif found is None and child is None:
                    child = self._start()
                    trouble = "" if child else IN_USE
                elif found is None and child and child.ended():
                    trouble = child.passing_trouble()
                    child = None
                    time.sleep(RETRY_PAUSE)
                time.sleep(POLL)
        except BaseException:
            if child is not None:
                child.process.send_signal(signal.SIGINT)
            raise
        # A server that still recovers is left alone: it goes on, and the next attempt adopts it.
        raise PostgresUnusable(
            reason=f"it was not ready after {START_WAIT} s\n{trouble or (child.words() if child else '')}".rstrip(),
            hint=f"see {self._cluster.log}; if it recovers from a crash, try again later",
        )

    def _start(self) -> Child | None:
        """A new server, or None while other processes hold the data."""
        home = self._cluster.home
        held = hold(home / "server")
        if held is None:
            return None
        try:
            self._cluster.write_config(self._settings)
            return start_postmaster(self._cluster, _port(home), held)
        finally:
            os.close(held)


@contextlib.contextmanager
def _faults(home: Path) -> Iterator[None]:
    """Say what the operating system refused as PostgresUnusable."""
    try:
        yield
    except OSError as error:
        reason = f"{error.filename or home}: {error.strerror or error}"
        hint = "run billingwatch as the user who owns the data directory, or set BILLINGWATCH_DATA_DIR to another"
        raise PostgresUnusable(reason=reason, hint=hint if isinstance(error, PermissionError) else None) from error
    except subprocess.TimeoutExpired as error:
        raise PostgresUnusable(reason=f"{error.cmd[0]} took longer than {error.timeout} s") from error


def _make_home(home: Path, account: Account) -> None:
    """Make the directories; a borrowed account must be able to pass through them, nobody else needs to."""
    mode = 0o700 if account.user is None else 0o711
    for directory in (home.parent, home):
        if not directory.exists():
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(mode)
    account.require_entry(home)


def _port(home: Path) -> int:
    """The port of last time, so that analysts' DSNs stay good; another one if there was none or somebody else has it now."""
    path = home / "port"
    wanted = int(path.read_text(encoding="utf-8")) if path.exists() else 0
    try:
        port = _free_port(wanted)
    except OSError:
        port = _free_port(0)
        log.warning("postgres.port_changed", old=wanted, new=port, reason="another program uses the old one")
    if port != wanted:
        write_whole(path, f"{port}\n", mode=0o644)
    return port


def _free_port(wanted: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does: connections of last time do not count
        probe.bind((HOST, wanted))
        return int(probe.getsockname()[1])
