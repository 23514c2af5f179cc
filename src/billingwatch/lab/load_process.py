"""The load process: a Python of its own, so that what it costs is neither hidden in the server's figures nor held up by its lock."""

from __future__ import annotations

import gc
import io
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Self, TypeVar

import msgspec
import uvloop

from billingwatch.lab.bodies import Target
from billingwatch.lab.load import Load, Outcome, Phase

T = TypeVar("T")

_LENGTH_BYTES = 8


class Ready(msgspec.Struct, frozen=True):
    """Said by the process when a phase is prepared, and to it when the clock starts."""


class LoadProcess:
    """Runs phases, one at a time: prepare, start, finish."""

    def __init__(self, targets: Sequence[Target]) -> None:
        # A session of its own: Ctrl-C reaches the bench alone, which then ends its processes in order.
        command = [sys.executable, "-P", "-m", "billingwatch.lab.load_process"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        _write(_pipe(self._process.stdin), list(targets))

    @property
    def pid(self) -> int:
        return self._process.pid

    def prepare(self, phase: Phase) -> None:
        """Have the deliveries of a phase made; returns when they are there."""
        _write(_pipe(self._process.stdin), phase)
        _read(_pipe(self._process.stdout), Ready)

    def start(self) -> None:
        """Start the clock of the phase that was prepared, and leave the caller free to do something to the server meanwhile."""
        _write(_pipe(self._process.stdin), Ready())

    def finish(self) -> Outcome:
        """Wait for the end of the phase. EOFError when the process died; it has said why on stderr."""
        return _read(_pipe(self._process.stdout), Outcome)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        _pipe(self._process.stdin).close()
        _pipe(self._process.stdout).close()


def main() -> None:
    """Read targets, then phases, from stdin; write outcomes to stdout; end with stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Under PYTHONUNBUFFERED sys.stdout writes at most once, and a pipe may take a part of it.
    given, result = sys.stdin.buffer, io.BufferedWriter(io.FileIO(1, "wb", closefd=False))
    targets = _read(given, list[Target])
    gc.freeze()
    gc.disable()  # a pause here would be taken for the server's
    while True:
        try:
            phase = _read(given, Phase)
        except EOFError:
            return
        load = Load(targets, phase)
        _write(result, Ready())
        _read(given, Ready)
        _write(result, uvloop.run(load.run()))
        del load
        gc.collect()


def _write(stream: IO[bytes], message: object) -> None:
    encoded = msgspec.msgpack.encode(message)
    stream.write(len(encoded).to_bytes(_LENGTH_BYTES) + encoded)
    stream.flush()


def _read(stream: IO[bytes], kind: type[T]) -> T:
    head = stream.read(_LENGTH_BYTES)
    body = stream.read(int.from_bytes(head))
    if len(head) < _LENGTH_BYTES or len(body) < int.from_bytes(head):
        raise EOFError
    return msgspec.msgpack.decode(body, type=kind)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise EOFError
    return stream


if __name__ == "__main__":
    main()
