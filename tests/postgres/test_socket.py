"""The embedded server's Unix socket: the service's own door, which nobody else can open."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from billingwatch.postgres import socket_directory
from billingwatch.postgres.account import Account
from billingwatch.postgres.cluster import DATABASE, HOST, ROLE
from billingwatch.postgres.connections import open_connection
from billingwatch.postgres.database import Database
from billingwatch.postgres.embedded import EmbeddedServer
from billingwatch.postgres.postmaster import find_postmaster
from billingwatch.postgres.socket_directory import make_socket_directory
from billingwatch.tenancy.analysts import analyst_dsn

FAST = {"fsync": "off", "shared_buffers": "16MB"}
AS_ROOT = os.geteuid() == 0


@pytest.fixture
def data_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="billingwatch-socket-"))
    directory.chmod(0o711)  # root's server runs as another user
    yield directory.resolve()
    shutil.rmtree(directory)


@pytest.fixture
def server(data_dir: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.acquire(data_dir, settings=FAST) as server:
        yield server


async def ask(dsn: str, statement: str) -> object:
    connection = await open_connection(dsn, "tests")
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def take(port: int) -> socket.socket:
    """Listen on the port as soon as the killed server's last process has ended."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_server((HOST, port))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def password_of(server: EmbeddedServer) -> str:
    return (server.psql.parents[2] / "password").read_text()


async def test_service_connects_by_socket_and_analysts_by_tcp(server: EmbeddedServer) -> None:
    database = Database(server.dsn, server)
    address = "SELECT inet_server_addr()"
    password = password_of(server)

    own = await ask(database.dsn, address)
    theirs = await ask(analyst_dsn(database.analysts_dsn, ROLE, password), address)

    assert own is None
    assert str(theirs).startswith(HOST)
    assert password not in database.analysts_dsn


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another account")
def test_other_accounts_cannot_enter_the_directory(server: EmbeddedServer, data_dir: Path) -> None:
    directory = data_dir / "postgres" / "socket"

    answer = subprocess.run(["ls", directory], user="nobody", capture_output=True, check=False)

    assert directory.stat().st_uid != 0
    assert answer.returncode != 0


async def test_thief_on_the_port_is_not_taken_for_the_server(server: EmbeddedServer, data_dir: Path) -> None:
    found = find_postmaster(data_dir / "postgres" / "data")
    assert found is not None
    assert server.answers()
    dsn = server.dsn
    os.kill(found.pid, signal.SIGKILL)

    with take(found.port):
        answered = server.answers()
        server.revive()

    assert not answered
    assert server.port != found.port
    assert server.dsn == dsn  # lanes reconnect; the service need not start again
    assert await ask(server.dsn, "SELECT 1") == 1


async def test_server_of_an_earlier_release_is_adopted_by_tcp(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def without_socket(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        kept = [word for word in command if not str(word).startswith("--unix_socket")]
        return start([*kept, "--unix_socket_directories="] if len(kept) < len(command) else kept, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(subprocess, "Popen", without_socket)
    with EmbeddedServer.acquire(data_dir, settings=FAST):
        monkeypatch.undo()
        with EmbeddedServer.acquire(data_dir, settings=FAST) as adopted:
            assert adopted.answers()
            assert f"@{HOST}:{adopted.port}/{DATABASE}" in adopted.dsn
            assert await ask(adopted.dsn, "SELECT 1") == 1
    with EmbeddedServer.acquire(data_dir, settings=FAST) as renewed:
        assert "host=" in renewed.dsn


async def test_deep_data_directory_gets_a_private_directory_elsewhere(data_dir: Path) -> None:
    deep = data_dir / ("d" * 100)
    deep.mkdir()
    deep.chmod(0o711)
    link = deep / "postgres" / "socket"

    with EmbeddedServer.acquire(deep, settings=FAST) as server:
        target = link.readlink()
        assert await ask(server.dsn, "SELECT 1") == 1
        found = target.lstat()
    with EmbeddedServer.acquire(deep, settings=FAST) as server:
        assert link.readlink() == target  # no litter with each start
    shutil.rmtree(target)

    assert stat.S_IMODE(found.st_mode) == 0o700
    assert found.st_uid == (deep / "postgres" / "data").stat().st_uid
    assert not target.is_relative_to(deep)


@pytest.mark.parametrize("damage", ["open to others", "a symlink", "gone"])
def test_directory_elsewhere_that_is_not_private_is_replaced(data_dir: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setattr(socket_directory, "_takes_sockets", lambda directory: not directory.is_relative_to(data_dir))
    account = Account(home=data_dir)
    first = make_socket_directory(data_dir, account)
    if damage == "open to others":
        first.chmod(0o755)
    else:
        first.rmdir()
    if damage == "a symlink":
        first.symlink_to(data_dir)

    second = make_socket_directory(data_dir, account)

    assert second != first
    assert stat.S_IMODE(second.lstat().st_mode) == 0o700
    assert (data_dir / "socket").readlink() == second
    second.rmdir()
    if damage == "open to others":
        first.rmdir()
    elif damage == "a symlink":
        first.unlink()


async def test_password_still_opens_the_tcp_port_by_scram_alone(server: EmbeddedServer) -> None:
    password = password_of(server)

    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(analyst_dsn(server.analysts_dsn, ROLE, password[:-1]))
