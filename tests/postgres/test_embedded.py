"""The embedded server, real: most tests start and stop it on one data directory, those that damage theirs have a copy."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from billingwatch.errors import PostgresUnusable
from billingwatch.postgres import embedded, postmaster
from billingwatch.postgres.embedded import EmbeddedServer
from billingwatch.postgres.postmaster import Postmaster, find_postmaster

FAST = {"fsync": "off", "shared_buffers": "16MB"}
INSTALLED = sorted(Path("/usr/lib/postgresql").glob("1[5-8]/bin"))
AS_ROOT = os.geteuid() == 0
USER = """
import sys
from pathlib import Path
from billingwatch.logs import configure_logs
from billingwatch.postgres.embedded import EmbeddedServer

configure_logs()
with EmbeddedServer.acquire(Path(sys.argv[1]), binaries=Path(sys.argv[2]), settings={"fsync": "off"}) as server:
    print(server.dsn, flush=True)
    sys.stdin.read()
"""

Acquire = Callable[..., EmbeddedServer]


class Template:
    """A data directory as the first start left it."""

    def __init__(self, home: Path, binaries: Path) -> None:
        self.home = home
        self.binaries = binaries


def _new_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="billingwatch-embedded-"))
    directory.chmod(0o711)  # root's server runs as somebody else, who must get through
    return directory.resolve()


@pytest.fixture(scope="module")
def template() -> Iterator[Template]:
    directory = _new_directory()
    strict = os.umask(0o077)
    try:
        with EmbeddedServer.acquire(directory, settings=FAST) as server:
            pass
    finally:
        os.umask(strict)
    yield Template(directory / "postgres", server.psql.parent)
    shutil.rmtree(directory)


@pytest.fixture
def empty_dir() -> Iterator[Path]:
    directory = _new_directory()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def data_dir(template: Template) -> Path:
    """Set up, no server running, shared with other tests."""
    return template.home.parent


@pytest.fixture
def own_dir(empty_dir: Path, template: Template) -> Path:
    """Set up, no server running, to be damaged."""
    home = empty_dir / "postgres"
    home.mkdir(mode=0o711)
    subprocess.run(["cp", "-a", template.home / "data", template.home / "password", home], check=True)
    return empty_dir


@pytest.fixture
def acquire(empty_dir: Path, template: Template) -> Iterator[Acquire]:
    held: list[EmbeddedServer] = []

    def take(directory: Path, binaries: Path = template.binaries, settings: dict[str, str] = FAST) -> EmbeddedServer:
        held.append(EmbeddedServer.acquire(directory, binaries=binaries, settings=settings))
        return held[-1]

    yield take
    for server in held:
        server.release()


@pytest.fixture
def user_process(data_dir: Path, template: Template) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start a process that holds a share until its stdin is closed, and prints the DSN when it has it."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", USER, data_dir, template.binaries]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.communicate(timeout=30)


def ask(server: EmbeddedServer, statement: str, dsn: str | None = None) -> str:
    answer = subprocess.run(
        [server.psql, dsn or server.dsn, "-XwAtqc", statement], capture_output=True, text=True, check=False, env={"LC_ALL": "C"}
    )
    return answer.stdout.strip() or answer.stderr.strip()


def live(data_dir: Path) -> Postmaster:
    found = find_postmaster(data_dir / "postgres" / "data")
    assert found is not None
    return found


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_from_nothing_it_becomes_a_guarded_utf8_server_on_loopback(empty_dir: Path) -> None:
    with EmbeddedServer.acquire(empty_dir, settings=FAST) as server:
        settings = ask(
            server, "SELECT string_agg(current_setting(s), ' ') FROM unnest('{listen_addresses,data_checksums,jit,fsync}'::text[]) s"
        )
        encoding = ask(
            server, "SELECT pg_encoding_to_char(encoding), datlocprovider, datlocale FROM pg_database WHERE datname = current_database()"
        )
        hba = ask(server, "SELECT DISTINCT auth_method FROM pg_hba_file_rules")
        found = live(empty_dir)
        home = empty_dir / "postgres"

        assert settings == "127.0.0.1 on off off"
        assert encoding == "UTF8|b|C.UTF-8"
        assert hba == "scram-sha-256"
        assert mode(home / "password") == 0o600
        assert mode(home / "data") == 0o700
        assert mode(home / "port") == 0o600
        assert mode(home / "postgres.log") == 0o600
        assert mode(home / "socket") == 0o700
        assert (home / "socket").stat().st_uid == (home / "data").stat().st_uid
        assert mode(home / "socket" / f".s.PGSQL.{found.port}") == 0o700
        assert (home / "password").stat().st_uid == os.geteuid()
        assert (home / "data").stat().st_uid != 0
        assert os.getsid(found.pid) != os.getsid(0)
        assert server.psql.is_relative_to(home)
    assert find_postmaster(home / "data") is None


def test_a_wrong_password_is_refused(acquire: Acquire, data_dir: Path) -> None:
    server = acquire(data_dir)
    password = (server.psql.parents[2] / "password").read_text()

    answer = ask(server, "SELECT 1", dsn=server.dsn.replace(password, "guessed"))

    assert "password authentication failed" in answer
    assert ask(server, "SELECT current_user, current_database()") == "billingwatch|billingwatch"
    assert ask(server, "SELECT current_database()", dsn=server.dsn_for("postgres")) == "postgres"


def test_a_lost_password_is_said_and_leaves_no_server_behind(acquire: Acquire, own_dir: Path) -> None:
    (own_dir / "postgres" / "password").write_text("another")

    with pytest.raises(PostgresUnusable, match="does not accept the password"):
        acquire(own_dir)

    wait_until(lambda: find_postmaster(own_dir / "postgres" / "data") is None)


def test_two_processes_that_start_at_once_share_one_server_and_the_last_one_stops_it(
    user_process: Callable[[], subprocess.Popen[str]], data_dir: Path
) -> None:
    first, second = user_process(), user_process()

    lines = [process.stdout.readline() for process in (first, second) if process.stdout]
    shared = live(data_dir)
    first.communicate(timeout=30)
    after_the_first = live(data_dir)
    second.communicate(timeout=30)

    assert lines[0] == lines[1] != ""
    assert after_the_first == shared
    assert find_postmaster(data_dir / "postgres" / "data") is None


def test_a_server_is_stopped_with_the_last_of_two_shares_in_one_process(acquire: Acquire, data_dir: Path) -> None:
    first, second = acquire(data_dir), acquire(data_dir)

    first.release()
    first.release()
    between = ask(second, "SELECT 1")
    second.release()

    assert between == "1"
    assert find_postmaster(data_dir / "postgres" / "data") is None


def test_a_server_outlives_its_killed_user_and_is_adopted(
    user_process: Callable[[], subprocess.Popen[str]], acquire: Acquire, data_dir: Path
) -> None:
    process = user_process()
    assert process.stdout
    dsn = process.stdout.readline().strip()
    before = live(data_dir)

    process.kill()
    process.wait()
    server = acquire(data_dir)

    assert live(data_dir) == before
    assert server.dsn == dsn
    server.release()
    assert find_postmaster(data_dir / "postgres" / "data") is None  # the dead user's lock did not live on in its child


def test_a_killed_server_comes_back_with_its_data_once_its_backends_are_gone(acquire: Acquire, data_dir: Path) -> None:
    server = acquire(data_dir)
    before = (live(data_dir), server.dsn)
    ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    end = data_dir / "end"
    busy = f"DO $$ BEGIN WHILE (pg_stat_file('{end}', true)).size IS NULL LOOP END LOOP; END $$"
    orphan = subprocess.Popen([server.psql, server.dsn, "-Xqc", busy], stderr=subprocess.DEVNULL)
    wait_until(lambda: ask(server, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %'") == "1")

    os.kill(before[0].pid, signal.SIGKILL)
    threading.Timer(0.5, end.touch).start()
    server.revive()

    assert end.exists()
    assert ask(server, "SELECT answer FROM kept") == "42"
    assert live(data_dir).pid != before[0].pid
    assert server.dsn == before[1]
    orphan.wait(timeout=30)


def test_a_server_that_cannot_be_seen_from_here_keeps_others_off_its_data(
    acquire: Acquire, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = acquire(data_dir)
    monkeypatch.setattr(embedded, "find_postmaster", lambda _: None)  # as in another container, on the same volume
    monkeypatch.setattr(embedded, "START_WAIT", 0.3)

    with pytest.raises(PostgresUnusable, match="a server in another container"):
        acquire(data_dir)

    monkeypatch.undo()
    assert ask(server, "SELECT 1") == "1"
    assert live(data_dir).ready


def test_a_stale_pid_file_that_names_another_live_process_is_ignored(acquire: Acquire, data_dir: Path) -> None:
    data = data_dir / "postgres" / "data"
    stranger = subprocess.Popen(["sleep", "60"], user=data.stat().st_uid if AS_ROOT else None)
    write_pid_file(data, stranger.pid)

    server = acquire(data_dir)

    assert ask(server, "SELECT 1") == "1"
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_stale_pid_file_that_names_another_data_directorys_server_is_ignored(acquire: Acquire, data_dir: Path, own_dir: Path) -> None:
    other = acquire(data_dir)
    write_pid_file(own_dir / "postgres" / "data", live(data_dir).pid)

    server = acquire(own_dir)

    assert server.port != other.port
    assert ask(server, "SHOW data_directory") == str(own_dir / "postgres" / "data")
    assert ask(other, "SELECT 1") == "1"


def test_the_port_stays_the_same_until_another_program_takes_it(acquire: Acquire, data_dir: Path) -> None:
    first = acquire(data_dir)
    first.release()
    again = acquire(data_dir)
    again.release()

    with socket.create_server(("127.0.0.1", first.port)), capture_logs() as logs:
        moved = acquire(data_dir)
        moved.release()
    settled = acquire(data_dir)

    assert first.port == again.port != moved.port == settled.port
    [change] = [entry for entry in logs if entry["event"] == "postgres.port_changed"]
    assert (change["old"], change["new"]) == (first.port, moved.port)


def test_data_of_another_major_version_is_refused_with_the_way_out(acquire: Acquire, own_dir: Path) -> None:
    (own_dir / "postgres" / "data" / "PG_VERSION").write_text("14\n")

    with pytest.raises(PostgresUnusable, match=r"made by PostgreSQL 14, and the binaries are PostgreSQL 1[5-8]") as caught:
        acquire(own_dir)

    assert "BILLINGWATCH_POSTGRES_BIN" in str(caught.value.hint)


def test_a_server_that_does_not_start_is_quoted(acquire: Acquire, data_dir: Path) -> None:
    with pytest.raises(PostgresUnusable, match='invalid value for parameter "max_connections": "plenty"'):
        acquire(data_dir, settings={"max_connections": "plenty"})

    assert ask(acquire(data_dir), "SHOW max_connections") == "200"


def test_a_server_that_is_not_ready_in_time_is_left_to_recover(acquire: Acquire, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = acquire(data_dir)
    server.release()
    monkeypatch.setattr(embedded, "START_WAIT", 0.02)

    with pytest.raises(PostgresUnusable, match="was not ready after"):
        acquire(data_dir)
    monkeypatch.undo()

    with capture_logs() as logs:
        acquire(data_dir)
    assert [entry["event"] for entry in logs] == ["postgres.adopted"]
    assert live(data_dir).ready


def test_a_long_log_is_put_aside(acquire: Acquire, data_dir: Path) -> None:
    log = data_dir / "postgres" / "postgres.log"
    os.truncate(log, postmaster.LOG_LIMIT + 1)

    acquire(data_dir)

    assert log.stat().st_size < 10_000
    assert log.with_name("postgres.log.1").stat().st_size > postmaster.LOG_LIMIT


def test_a_directory_without_binaries_is_refused(acquire: Acquire, empty_dir: Path) -> None:
    with pytest.raises(PostgresUnusable, match="has no postgres and no initdb and no psql"):
        acquire(empty_dir, binaries=empty_dir)


def test_what_the_operating_system_refuses_is_said_in_one_line(acquire: Acquire, empty_dir: Path) -> None:
    (empty_dir / "postgres").mkdir(mode=0o711)
    (empty_dir / "postgres" / "lock").mkdir()

    with pytest.raises(PostgresUnusable, match=r"postgres/lock: Is a directory$"):
        acquire(empty_dir)


@pytest.mark.skipif(not INSTALLED, reason="no PostgreSQL 15 to 18 under /usr/lib/postgresql")
def test_binaries_of_an_installed_postgresql_do_and_an_interrupted_initdb_is_forgotten(acquire: Acquire, empty_dir: Path) -> None:
    half_made = empty_dir / "postgres" / "initdb" / "data"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("15\n")
    (empty_dir / "postgres").chmod(0o711)

    server = acquire(empty_dir, binaries=INSTALLED[0])

    assert ask(server, "SHOW server_version").startswith(INSTALLED[0].parent.name)
    assert ask(server, "SHOW server_encoding") == "UTF8"
    assert server.psql == INSTALLED[0] / "psql"
    assert not half_made.exists()


@pytest.mark.skipif(not AS_ROOT, reason="only root lends an account")
def test_root_keeps_the_account_that_owns_the_data(acquire: Acquire, own_dir: Path) -> None:
    data = own_dir / "postgres" / "data"
    subprocess.run(["chown", "-R", "nobody", data], check=True)

    server = acquire(own_dir)

    assert ask(server, "SELECT 1") == "1"
    assert Path(f"/proc/{live(own_dir).pid}").stat().st_uid == data.stat().st_uid


@pytest.mark.skipif(not AS_ROOT, reason="only root lends an account")
def test_root_is_told_which_directory_the_server_cannot_enter(acquire: Acquire, empty_dir: Path) -> None:
    empty_dir.chmod(0o700)

    with pytest.raises(PostgresUnusable, match=f"cannot enter {empty_dir}$") as caught:
        acquire(empty_dir / "data" / "of" / "billingwatch")

    assert "BILLINGWATCH_DATA_DIR" in str(caught.value.hint)


def write_pid_file(data: Path, pid: int) -> None:
    pid_file = data / "postmaster.pid"
    pid_file.write_text(f"{pid}\n{data}\n{int(time.time())}\n5432\n\n127.0.0.1\n  1234567         1\nready   \n")
    os.chown(pid_file, data.stat().st_uid, data.stat().st_gid)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
