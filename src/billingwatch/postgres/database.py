"""The database that the settings name: a given PostgreSQL, or the embedded server of the data directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from billingwatch.errors import PostgresUnusable
from billingwatch.postgres.embedded import EmbeddedServer
from billingwatch.settings import Settings

log = structlog.get_logger()

WATCH_SECONDS = 1.0  # between two looks at the embedded server


class Database:
    """A database to connect to. Release it in the end: the embedded server stops when nobody uses it any more."""

    def __init__(self, dsn: str, embedded: EmbeddedServer | None = None) -> None:
        self.dsn = dsn
        self._embedded = embedded

    @property
    def analysts_dsn(self) -> str:
        """Where analysts connect. The embedded server's socket is for the service alone, and its port for them."""
        return self.dsn if self._embedded is None else self._embedded.analysts_dsn

    @property
    def psql(self) -> Path | None:
        """A psql that speaks with this server, if there is one."""
        if self._embedded is not None:
            return self._embedded.psql
        found = shutil.which("psql")
        return Path(found) if found else None

    @contextlib.contextmanager
    def kept_up(self) -> Iterator[None]:
        """While the block runs, start the embedded server again whenever it dies; a given PostgreSQL is somebody else's to watch."""
        if self._embedded is None:
            yield
            return
        stop = threading.Event()
        watcher = threading.Thread(target=_watch, args=(self._embedded, stop), name="postgres watcher", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()

    def release(self) -> None:
        if self._embedded is not None:
            self._embedded.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def open_database(settings: Settings) -> Database:
    """Use the given database, or start or adopt the embedded one. Blocks; PostgresUnusable."""
    if settings.database_url is not None:
        return Database(settings.database_url)
    embedded = EmbeddedServer.acquire(settings.data_dir, binaries=settings.postgres_bin)
    return Database(embedded.dsn, embedded)


def _watch(server: EmbeddedServer, stop: threading.Event) -> None:
    while not stop.wait(WATCH_SECONDS):
        if server.answers():
            continue
        dsn = server.dsn
        try:
            server.revive()
        except PostgresUnusable as error:
            log.warning("postgres.not_revived", error=str(error))
            continue
        if server.dsn != dsn:  # Everything that holds the old address has to start again.
            log.error("postgres.moved", port=server.port)
            os.kill(os.getpid(), signal.SIGTERM)
            return
