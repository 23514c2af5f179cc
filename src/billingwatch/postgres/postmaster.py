"""The server's process: find it by its pid file without trusting that file, start it, stop it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec

from billingwatch.errors import PostgresUnusable
from billingwatch.postgres.cluster import HOST, Cluster
from billingwatch.postgres.locks import POLL

STOP_WAIT = 60  # seconds; a fast shutdown writes a checkpoint
LOG_LIMIT = 10_000_000  # bytes; a longer log is put aside at the next start
PID_FILE_LINES = 8
LOG_LINES = 12  # shown when the server does not start
PASSING = ("is still in use", "Address already in use")
"""What a server says on its way out that the next attempt may not meet: somebody on the data, or on the port since we looked."""


class Postmaster(msgspec.Struct, frozen=True, kw_only=True):
    """A live server of ours; `ready` is false while it starts, recovers or stops."""

    pid: int
    port: int
    socket_directory: Path | None
    """None: a server that an earlier release started."""
    ready: bool


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """A server that we started."""

    process: subprocess.Popen[bytes]
    log: Path
    spoken: int  # bytes in the log before its first word

    def ended(self) -> bool:
        return self.process.poll() is not None

    def words(self) -> str:
        with self.log.open("rb") as file:
            file.seek(self.spoken)
            lines = file.read().decode(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-LOG_LINES:])

    def passing_trouble(self) -> str:
        """Why it ended, if another attempt may do better; else raise PostgresUnusable."""
        words = self.words()
        if not any(reason in words for reason in PASSING):
            raise PostgresUnusable(reason=f"it does not start\n{words}", hint=f"see {self.log}")
        return words


def find_postmaster(data: Path) -> Postmaster | None:
    """The live server of a data directory, or None; a pid file by itself proves nothing, its pid may be another process by now."""
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        # A server that is starting has not written all lines yet.
        pid, directory, _, port, sockets, _, _, state = (lines + [""] * PID_FILE_LINES)[:PID_FILE_LINES]
        same = Path(directory).samefile(data)
    except (OSError, ValueError):
        return None
    if not same or not _serves(int(pid), data):
        return None
    return Postmaster(pid=int(pid), port=int(port), socket_directory=Path(sockets) if sockets else None, ready=state == "ready   ")


def start_postmaster(cluster: Cluster, port: int, socket_directory: Path, held: int) -> Child:
    """Start the server in a session of its own, so that neither Ctrl-C nor our end reaches it.

    It inherits the lock `held`: that is held as long as the server or one of its backends lives, wherever they can be seen from.
    """
    # Nobody serves this data, so the file is stale. PostgreSQL would refuse to start if its pid is another process of the same user by now.
    (cluster.data / "postmaster.pid").unlink(missing_ok=True)
    if cluster.log.exists() and cluster.log.stat().st_size > LOG_LIMIT:
        cluster.log.replace(cluster.log.with_name("postgres.log.1"))
    fixed = {
        "config_file": str(cluster.config),
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": '"' + str(socket_directory).replace('"', '""') + '"',
        "unix_socket_permissions": "0700",
    }
    with os.fdopen(os.open(cluster.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as output:
        os.fchmod(output.fileno(), 0o600)
        spoken = output.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            [cluster.binaries.directory / "postgres", "-D", cluster.data, *(f"--{name}={value}" for name, value in fixed.items())],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(held,),
            cwd="/",
            env=cluster.account.environment,
            start_new_session=True,
            user=cluster.account.user,
            group=cluster.account.group,
            extra_groups=cluster.account.groups,
        )
    # A long-lived service waits for its child whenever that ends, and so keeps no zombie.
    threading.Thread(target=process.wait, name="postgres-reaper", daemon=True).start()
    return Child(process=process, log=cluster.log, spoken=spoken)


def stop_postmaster(data: Path) -> bool:
    """Disconnect everyone, write a checkpoint and end; returns whether that was so within STOP_WAIT."""
    found = find_postmaster(data)
    if found is None:
        return True
    with contextlib.suppress(ProcessLookupError):
        os.kill(found.pid, signal.SIGINT)
    deadline = time.monotonic() + STOP_WAIT
    while _serves(found.pid, data):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def _serves(pid: int, data: Path) -> bool:
    command = _command_line(pid)
    try:
        return "postgres" in command and Path(f"/proc/{pid}/cwd").samefile(data)
    except OSError:  # no /proc (macOS), or root without the right to look into other users' processes (containers)
        return f"postgres -D {data} " in f"{command} "


def _command_line(pid: int) -> str:
    """Empty for a process that has ended, a zombie included."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return ""
    command = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip()
