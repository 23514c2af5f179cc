"""The directory of the embedded server's Unix socket: only the server's account and root can enter it.

It lies in the data directory. If no socket can be made there, a symlink leads to a private directory under
XDG_RUNTIME_DIR or /tmp: the path may be longer than about 100 bytes, or the file system may have no sockets.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
from pathlib import Path

from billingwatch.errors import PostgresUnusable
from billingwatch.postgres.account import Account

NAME = "socket"
PRIVATE = 0o700
LONGEST_NAME = ".s.PGSQL.65535"
STABLE_PORT = 5432  # part of the socket's name for clients, whatever the server's port is


def make_socket_directory(home: Path, account: Account) -> Path:
    """Create the directory for a server that starts now; the caller holds the start mutex. Raises PostgresUnusable."""
    own = home / NAME
    if own.is_symlink():
        target = own.readlink()
        if _is_private(target, account) and _takes_sockets(target):
            return target
        own.unlink()
    own.mkdir(mode=PRIVATE, exist_ok=True)
    account.own(own)
    own.chmod(PRIVATE)
    if _takes_sockets(own):
        return own
    own.rmdir()
    target = _make_elsewhere(account)
    own.symlink_to(target)
    return target


def link_socket(directory: Path, port: int) -> None:
    """Give the server's socket a second, stable name, so that DSNs stay valid when the port changes."""
    stable, actual = directory / socket_name(STABLE_PORT), socket_name(port)
    if port == STABLE_PORT or (stable.is_symlink() and stable.readlink().name == actual):
        return
    draft = directory / f".draft.{os.getpid()}"
    draft.unlink(missing_ok=True)
    draft.symlink_to(actual)
    draft.replace(stable)


def _make_elsewhere(account: Account) -> Path:
    for base in _bases(account):
        # A new name each time: nobody else can have prepared a directory that we would then use.
        target = Path(tempfile.mkdtemp(prefix="billingwatch-", dir=base))
        account.own(target)
        if _takes_sockets(target):
            return target
        target.rmdir()
    raise PostgresUnusable(
        reason="no directory is short enough for its Unix socket",
        hint="set BILLINGWATCH_DATA_DIR to a shorter path",
    )


def _bases(account: Account) -> list[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    # A lent account cannot enter the runtime directory of another user.
    own = [runtime] if account.user is None and runtime and os.access(runtime, os.W_OK | os.X_OK) else []
    return [*own, tempfile.gettempdir()]


def _is_private(directory: Path, account: Account) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    owner = os.geteuid() if account.user is None else account.user
    return stat.S_ISDIR(found.st_mode) and found.st_uid == owner and stat.S_IMODE(found.st_mode) == PRIVATE


def _takes_sockets(directory: Path) -> bool:
    probe = directory / LONGEST_NAME
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as found:
        try:
            found.bind(str(probe))
        except OSError:
            return False
    with contextlib.suppress(FileNotFoundError):
        probe.unlink()
    return True


def socket_name(port: int) -> str:
    return f".s.PGSQL.{port}"
