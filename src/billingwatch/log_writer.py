"""A text stream whose `write` neither blocks nor raises: one thread writes the lines to a file descriptor."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import select
import threading
import time
from collections.abc import Callable

QUEUE_BYTES = 8 * 1024 * 1024  # of lines that wait for a reader that is slow or gone
LINE_CHARACTERS = 256 * 1024  # a longer text is cut
FLUSH_SECONDS = 1.0  # that closing waits for the lines in the queue
RETRY_SECONDS = 0.2  # between two attempts while writing fails


class LogWriter(io.TextIOBase):
    """Lines for a pipe, a file or a terminal that may be full, closed or never read.

    A text that cannot be written is dropped and counted. Once writing works, `notice` renders a line with the count.
    """

    def __init__(self, descriptor: int | None, *, encoding: str = "utf-8") -> None:
        self.notice: Callable[[int], str] = "{} log lines dropped\n".format
        self._descriptor = descriptor
        self._encoding = encoding
        # A queue whose put() may be interrupted by a signal handler that logs.
        self._texts: queue.SimpleQueue[bytes | threading.Event | None] = queue.SimpleQueue()
        self._queued = 0  # bytes
        self._lock = threading.RLock()
        self._dropped = 0
        self._reported = 0
        self._counted = 0
        self._open = descriptor is not None
        self._broken_line = False
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        if self._open:
            try:
                self._thread.start()
            except RuntimeError:  # the limit of threads is reached
                self._open = False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    @property
    def dropped(self) -> int:
        """Texts that were not written so far."""
        return self._dropped

    def take_dropped(self) -> int:
        """Return how many texts were dropped since the last call."""
        with self._lock:
            new = self._dropped - self._counted
            self._counted = self._dropped
        return new

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._descriptor is not None and os.isatty(self._descriptor)

    def fileno(self) -> int:
        if self._descriptor is None:
            raise io.UnsupportedOperation
        return self._descriptor

    def write(self, text: str) -> int:
        data = text[:LINE_CHARACTERS].encode(self._encoding, "backslashreplace")
        if len(text) > LINE_CHARACTERS:
            data += b" [cut]\n"
        with self._lock:
            if not self._open or self._queued + len(data) > QUEUE_BYTES:
                self._dropped += 1
                return len(text)
            self._queued += len(data)
        self._texts.put(data)
        return len(text)

    def flush(self) -> None:
        """Do nothing, because waiting for the reader could block the caller."""

    def drain(self) -> None:
        """Wait up to `FLUSH_SECONDS` until all that was written before has left the queue."""
        if self._open:
            passed = threading.Event()
            self._texts.put(passed)
            passed.wait(FLUSH_SECONDS)

    def close(self) -> None:
        """Wait up to `FLUSH_SECONDS` until the queue is written. What is written later is dropped."""
        if self._open:
            self._open = False
            self._texts.put(None)
            self._thread.join(FLUSH_SECONDS)

    def _run(self) -> None:
        while (data := self._texts.get()) is not None:
            if isinstance(data, threading.Event):
                data.set()
                continue
            written = False
            with contextlib.suppress(Exception):  # the thread must not end
                written = self._put(data)
            with self._lock:
                self._queued -= len(data)
                self._dropped += not written
        self._report()

    def _put(self, data: bytes) -> bool:
        if not self._report():
            return False
        return self._write_whole(data)

    def _report(self) -> bool:
        """Write how many texts were dropped since the last report. Return False when that fails, too."""
        new = self._dropped - self._reported
        if new == 0:
            return True
        line = ("\n" if self._broken_line else "") + self.notice(new)
        if not self._write_whole(line.encode(self._encoding, "backslashreplace")):
            # Without a pause each queued line would be one failing call.
            time.sleep(RETRY_SECONDS if self._open else 0)
            return False
        self._reported += new
        return True

    def _write_whole(self, data: bytes) -> bool:
        if self._descriptor is None:
            return False
        left = memoryview(data)
        with contextlib.suppress(OSError):
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:  # another program made the descriptor non-blocking
                    ready = select.poll()
                    ready.register(self._descriptor, select.POLLOUT)
                    ready.poll()
        if left:
            self._broken_line = self._broken_line or len(left) < len(data)
        else:
            self._broken_line = False
        return not left
