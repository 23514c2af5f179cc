"""The cluster on disk: a data directory that initdb finished, its password, its settings, and psql to talk to it."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from billingwatch.errors import PostgresUnusable
from billingwatch.postgres.account import Account
from billingwatch.postgres.binaries import Binaries
from billingwatch.postgres.locks import mutex
from billingwatch.postgres.sizing import sized

HOST = "127.0.0.1"
ROLE = DATABASE = "billingwatch"
BUILTIN_LOCALE = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")
BUILTIN_LOCALE_SINCE = 17
NOTIFY_LIMIT_SINCE = 17

SETTINGS: Mapping[str, str] = {
    "autovacuum_naptime": "15s",
    "checkpoint_timeout": "15min",
    "fsync": "on",
    "jit": "off",
    "log_line_prefix": "%m [%p] %q%u@%d %a ",
    "log_min_messages": "warning",
    "log_statement": "none",
    "logging_collector": "off",
    "max_connections": "200",
    "max_wal_size": "2GB",
    "random_page_cost": "1.1",
    "synchronous_commit": "on",
    "wal_compression": "on",
}
"""For 2 to 8 cores and many schemas; `ALTER SYSTEM` goes before them, and before those of the machine's size."""

SETTINGS_SINCE_17: Mapping[str, str] = {
    "max_notify_queue_pages": "1024",  # 8 MB: nothing here notifies, and an analyst could fill 8 GB of the disk
}

GREETING = r"""
SELECT format('CREATE DATABASE %I', :'database') WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = :'database') \gexec
SELECT 'REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1 FROM PUBLIC' WHERE pg_catalog.has_database_privilege('public', 'postgres', 'CONNECT') \gexec
"""

log = structlog.get_logger()


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """What a server needs to run; everything of it lies in `home`, the data itself in `home`/data."""

    home: Path
    account: Account
    binaries: Binaries
    password: str

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "postgres.log"

    @property
    def config(self) -> Path:
        return self.home / "postgresql.conf"

    @property
    def settings(self) -> Mapping[str, str]:
        return {**SETTINGS, **(SETTINGS_SINCE_17 if self.binaries.major >= NOTIFY_LIMIT_SINCE else {})}

    def greet(self, host: str, port: int) -> str:
        """Log in and create the service's database if it is missing; returns why this must be tried again, or nothing."""
        psql = self.binaries.directory / "psql"
        variables = ("-v", "ON_ERROR_STOP=1", "-v", f"database={DATABASE}")
        address = ("-h", host, "-p", str(port), "-U", ROLE, "-d", "postgres")
        answer = self.account.run(psql, "-X", "-w", "-q", *variables, *address, stdin=GREETING, password=self.password)
        if "password authentication failed" in answer.stderr:
            raise PostgresUnusable(
                reason=f"it does not accept the password in {self.home / 'password'}", hint="restore that file from a backup"
            )
        return answer.stderr.strip() or f"psql ended with {answer.returncode}" if answer.returncode else ""

    def write_config(self, overrides: Mapping[str, str]) -> None:
        """Write the settings into a file beside the data, which is the server account's own: root writes nothing in there."""
        lines = [f"{name} = '{_escaped(value)}'" for name, value in {**self.settings, **sized(), **overrides}.items()]
        text = "\n".join(["# Written at each start; change settings with ALTER SYSTEM.", "include 'data/postgresql.conf'", *lines, ""])
        write_whole(self.config, text, mode=0o644)


def prepare_cluster(home: Path, account: Account, binaries: Binaries) -> Cluster:
    """The cluster in `home`, made by initdb if there is none; the caller holds the start mutex."""
    data = home / "data"
    if data.exists():
        _require_major(data, binaries.major)
        cluster = Cluster(home=home, account=account, binaries=binaries, password=_password(home, may_create=False))
    else:
        cluster = Cluster(home=home, account=account, binaries=binaries, password=_password(home, may_create=True))
        _initialize(cluster)
    return cluster


def write_whole(path: Path, text: str, *, mode: int) -> None:
    """Replace a file by `text`, or leave it as it was, even when the machine stops half-way."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask is
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _require_major(data: Path, major: int) -> None:
    try:
        found = (data / "PG_VERSION").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise PostgresUnusable(reason=f"{data} is no PostgreSQL data directory", hint=f"move {data} away") from None
    if found != str(major):
        raise PostgresUnusable(
            reason=f"{data} was made by PostgreSQL {found}, and the binaries are PostgreSQL {major}",
            hint=f"set BILLINGWATCH_POSTGRES_BIN to the bin directory of PostgreSQL {found}; or dump with its pg_dumpall,"
            f" move {data} away, start again and restore",
        )


def _password(home: Path, *, may_create: bool) -> str:
    path = home / "password"
    if may_create and not path.exists():
        write_whole(path, secrets.token_urlsafe(24), mode=0o600)
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise PostgresUnusable(reason=f"{path} is missing, and {home / 'data'} has data", hint="restore that file from a backup") from None


def _initialize(cluster: Cluster) -> None:
    """Run initdb in a directory beside, and move its work into place when it is whole."""
    unfinished = cluster.home / "initdb"
    # initdb inherits the server's lock: if we are killed it works on for a moment, and the next process waits for it here.
    with mutex(cluster.home / "server") as held:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password = unfinished / "password"
        write_whole(password, cluster.password, mode=0o600)
        for path in (password, unfinished):
            cluster.account.own(path)
        answer = cluster.account.run(
            cluster.binaries.directory / "initdb",
            f"--pgdata={unfinished / 'data'}",
            f"--username={ROLE}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--data-checksums",
            "--encoding=UTF8",
            "--locale=C",  # of messages and libc; it exists everywhere, which C.UTF-8 does not (macOS)
            *(BUILTIN_LOCALE if cluster.binaries.major >= BUILTIN_LOCALE_SINCE else ()),
            inherit=(held,),
        )
        if answer.returncode:
            raise PostgresUnusable(reason=f"initdb failed: {answer.stderr.strip()}")
        (unfinished / "data").rename(cluster.data)
        shutil.rmtree(unfinished)
    log.info("postgres.initialized", data=str(cluster.data), major=cluster.binaries.major)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
