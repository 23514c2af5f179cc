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
        """Start the embedded server again when it dies while the block runs. Do nothing for a given PostgreSQL.

        Raises PostgresUnusable at the end when the server had to move to another port.
        """
        if self._embedded is None:
            yield
            return
        watcher = Watcher(self._embedded)
        watcher.start()
        try:
            yield
        finally:
            watcher.stop()

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


class Watcher:
    """The thread that starts the embedded server again."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._stop = threading.Event()
        self._moved = False
        self._thread = threading.Thread(target=self._run, name="postgres watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        if self._moved:
            raise PostgresUnusable(reason="it moved to another address", hint="start this command again")

    def _run(self) -> None:
        """Check until `stop`. A check that fails is logged, because the thread has to outlive it."""
        while not self._stop.wait(WATCH_SECONDS) and not self._moved:
            try:
                self._check()
            except PostgresUnusable as error:
                log.warning("postgres.not_revived", error=str(error))
            except Exception:
                log.exception("postgres.watcher_failed")

    def _check(self) -> None:
        if self._server.answers():
            return
        dsn = self._server.dsn
        self._server.revive()
        if self._server.dsn != dsn:  # Every connection of this process would go to the old address.
            log.error("postgres.moved", port=self._server.port)
            self._moved = True
            os.kill(os.getpid(), signal.SIGTERM)
