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
from billingwatch.postgres.socket_directory import STABLE_PORT, link_socket, make_socket_directory, socket_name

START_WAIT = 60  # seconds; covers crash recovery, and the backends of a killed server, which finish their statement
RETRY_PAUSE = 0.5  # seconds
ANSWER_WAIT = 5.0  # seconds
IN_USE = "processes that cannot be seen from here still use the data: those of a killed server, or a server in another container"

log = structlog.get_logger()


class EmbeddedServer:
    """A share in the server: it runs as long as anybody, in any process, holds one."""

    def __init__(self, cluster: Cluster, settings: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._settings = settings
        self._share: int | None = None
        self._socket_directory: Path | None = None
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
        """Return the service's own DSN: by the Unix socket, whose directory nobody else can enter."""
        user = f"{ROLE}:{self._cluster.password}"
        if self._socket_directory is None:  # started by an earlier release
            return f"postgresql://{user}@{HOST}:{self.port}/{quote(database, safe='')}"
        return f"postgresql://{user}@/{quote(database, safe='')}?host={quote(str(self._socket_directory), safe='')}&port={STABLE_PORT}"

    @property
    def analysts_dsn(self) -> str:
        """Where other people's programs connect: TCP on this machine, without a user."""
        return f"postgresql://{HOST}:{self.port}/{DATABASE}"

    def answers(self) -> bool:
        """Return whether the server of this data directory accepts connections; another program on its port does not count."""
        found = find_postmaster(self._cluster.data)
        if found is None or not found.ready:
            return False
        family, address = (
            (socket.AF_INET, (HOST, found.port))
            if found.socket_directory is None
            else (socket.AF_UNIX, str(found.socket_directory / socket_name(found.port)))
        )
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(ANSWER_WAIT)
            probe.connect(address)
            return True
        return False

    def revive(self) -> None:
        """Start the server again if it has died under us; `port` may be another one then."""
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
                    trouble = self._cluster.greet(str(found.socket_directory or HOST), found.port)
                    if not trouble:
                        if child:
                            log.info("postgres.started", pid=found.pid, port=found.port)
                        else:  # what every command beside a running service does
                            log.debug("postgres.adopted", pid=found.pid, port=found.port)
                        if found.socket_directory is not None:
                            link_socket(found.socket_directory, found.port)
                        self.port, self._socket_directory = found.port, found.socket_directory
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
            directory = make_socket_directory(home, self._cluster.account)
            return start_postmaster(self._cluster, _port(home), directory, held)
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
    wanted = 0
    if path.exists():
        path.chmod(0o600)  # earlier releases let every account read it
        wanted = int(path.read_text(encoding="utf-8"))
    try:
        port = _free_port(wanted)
    except OSError:
        port = _free_port(0)
        log.warning("postgres.port_changed", old=wanted, new=port, reason="another program uses the old one")
    if port != wanted:
        write_whole(path, f"{port}\n", mode=0o600)
    return port


def _free_port(wanted: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does: connections of last time do not count
        probe.bind((HOST, wanted))
        return int(probe.getsockname()[1])
