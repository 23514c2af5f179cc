"""Logging neither raises nor blocks, whatever happens to stderr."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from billingwatch.log_writer import QUEUE_BYTES, LogWriter

PRELUDE = """
import logging, os, sys, time, warnings
import structlog
from billingwatch import logs, metrics
logs.configure_logs(log_format=LOG_FORMAT)
log = structlog.get_logger()
"""
SECONDS = 30


def run(body: str, *, log_format: str = "json", stderr: int = subprocess.PIPE, **environ: str) -> subprocess.CompletedProcess[str]:
    code = PRELUDE.replace("LOG_FORMAT", repr(log_format)) + textwrap.dedent(body)
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=SECONDS, check=False, env={**os.environ, **environ}
    )


@pytest.fixture
def closed_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.fixture
def unread_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    yield writer
    os.close(reader)
    os.close(writer)


EVERY_KIND = """
log.info("tests.line", fact=1)
logging.getLogger("uvicorn.error").error("a line of uvicorn")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("tests.failed")
    logging.getLogger("asyncio").exception("Task exception was never retrieved")
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_lines_of_every_logger_reach_stderr_in_order(log_format):
    done = run(EVERY_KIND, log_format=log_format)

    found = [done.stderr.index(text) for text in ("tests.line", "a line of uvicorn", "tests.failed", "never retrieved")]
    assert found == sorted(found)
    assert done.stderr.count("ZeroDivisionError: division by zero") == 2
    assert done.returncode == 0


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_closed_pipe_drops_and_counts_every_line(closed_pipe, log_format):
    done = run(
        EVERY_KIND
        + """
while logs._State.writer.dropped < 4:
    time.sleep(0.01)
logs.count_dropped_lines()
print(metrics.log_lines_dropped._value.get())
""",
        stderr=closed_pipe,
        log_format=log_format,
    )

    assert (done.returncode, done.stdout) == (0, "4.0\n")


def test_unread_pipe_does_not_block_the_caller(unread_pipe):
    done = run(
        """
        logs.protect_stderr()
        for number in range(40_000):
            log.info("tests.line", number=number, padding="x" * 300)
        logging.getLogger("uvicorn.error").error("a line of uvicorn")
        print("a message", file=sys.stderr)
        warnings.warn("a warning")
        sys.unraisablehook  # the default hook prints to sys.stderr
        print(logs._State.writer.dropped > 0)
        raise SystemExit(3)
        """,
        stderr=unread_pipe,
    )

    assert (done.returncode, done.stdout) == (3, "True\n")


def test_full_disk_drops_lines_and_reports_them_afterwards(tmp_path: Path):
    done = run(
        """
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        for number in range(20):
            log.info("tests.line", number=number, padding="x" * 100)
        while not logs._State.writer.dropped:
            time.sleep(0.01)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        log.info("tests.last")
        """,
        stderr=(file := (tmp_path / "log").open("wb")).fileno(),
    )
    file.close()

    lines = (tmp_path / "log").read_text().splitlines()
    dropped = [line for line in lines if "logs.lines_dropped" in line]
    assert done.returncode == 0
    assert dropped
    assert "tests.last" in lines[-1]
    assert all(line.startswith("{") for line in lines)


def test_missing_stderr_does_not_stop_the_program():
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, PRELUDE.replace("LOG_FORMAT", "'json'") + EVERY_KIND + "print('end')"],
        stdout=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "end\n")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_text_that_cannot_be_encoded_is_escaped(log_format):
    done = run('log.info("tests.line", fact="\\ud83d and \\u20ac")\nlogging.getLogger("x").error("\\ud83d")', log_format=log_format)

    assert done.returncode == 0
    assert "ud83d and" in done.stderr
    assert "Traceback" not in done.stderr


def test_text_outside_the_locale_is_escaped():
    done = run('log.info("tests.line", fact="\\u20ac")', log_format="console", PYTHONIOENCODING="ascii")

    assert done.returncode == 0
    assert "\\u20ac" in done.stderr


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_fact_that_cannot_be_rendered_leaves_a_line(log_format):
    done = run(
        """
        class Bad:
            def __repr__(self):
                raise RuntimeError("no text")
            __str__ = __repr__
        log.error("tests.line", fact=Bad())
        log.error("tests.failed", exc_info=Bad())
        logging.getLogger("x").error("fact %s", Bad())
        log.info("tests.last")
        """,
        log_format=log_format,
    )

    assert done.returncode == 0
    assert "logs.line_unrenderable" in done.stderr
    assert "tests.last" in done.stderr
    assert "Traceback" not in done.stderr


def test_writer_writes_all_that_fits_and_counts_the_rest():
    reader, descriptor = os.pipe()
    writer = LogWriter(descriptor)
    line = "x" * 999 + "\n"
    while not writer.dropped:
        writer.write(line)
    dropped = writer.take_dropped()

    received = bytearray()
    deadline = time.monotonic() + SECONDS
    while len(received) < QUEUE_BYTES // 2 and time.monotonic() < deadline:
        received += os.read(reader, 65536)
    writer.write("last\n")
    while not received.endswith(b"last\n") and time.monotonic() < deadline:
        received += os.read(reader, 65536)
    writer.close()
    os.close(descriptor)
    os.close(reader)

    assert dropped == 1
    assert writer.take_dropped() == 0
    assert received.endswith(b"last\n")
    assert b"1 log lines dropped\n" in received


def test_closing_a_writer_that_nobody_reads_ends():
    reader, descriptor = os.pipe()
    writer = LogWriter(descriptor)
    writer.write("x" * 200_000)
    began = time.monotonic()
    writer.close()
    seconds = time.monotonic() - began
    os.close(reader)

    assert seconds < SECONDS


def test_drained_log_precedes_a_message_of_the_program():
    done = run(
        """
        for number in range(200):
            log.info("tests.line", number=number)
        logs.drain_logs()
        sys.stderr.write("error: a message\\n")
        """
    )

    lines = done.stderr.splitlines()
    assert len(lines) == 201
    assert lines[-1] == "error: a message"
