"""Structured logs on stderr: `package.thing_happened` with facts as keys; secrets are never facts.

Logging never raises and never blocks its caller. A text that cannot be written is dropped and counted (log_writer).
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import structlog

from billingwatch import metrics
from billingwatch.log_writer import LogWriter

UNRENDERABLE = "logs.line_unrenderable"


class _State:
    writer: LogWriter | None = None


def configure_logs(*, log_format: str = "console", log_level: str = "info") -> None:
    """Send structlog and the standard library's logging to stderr in one format."""
    stderr = _stderr()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=stderr is not None and os.isatty(stderr),
            exception_formatter=structlog.dev.plain_traceback,  # the default one shows local variables, and so secrets
        )
    )
    tracebacks: list[structlog.typing.Processor] = [structlog.processors.format_exc_info] if log_format == "json" else []
    processors = [*shared, *tracebacks, last]
    writer = _writer_of_process(stderr)
    writer.notice = _notice(processors)
    structlog.configure(
        processors=processors,
        wrapper_class=_never_raising(log_level),
        logger_factory=lambda *_: _Lines(writer),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(writer)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tracebacks, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.INFO, logging.getLevelNamesMapping()[log_level.upper()]))
    for noisy in ("uvicorn.access", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def protect_stderr() -> None:
    """Send all that Python writes to stderr through the log's queue, messages and tracebacks included.

    For programs that must keep running: a direct write to a pipe that nobody reads blocks the event loop.
    """
    if _State.writer is not None:
        sys.stderr = _State.writer


def drain_logs() -> None:
    """Wait up to a second until the queue is written. For a message on stderr that has to follow the log."""
    if _State.writer is not None:
        _State.writer.drain()


def count_dropped_lines() -> None:
    """Add the log lines that were dropped since the last call to their counter."""
    if _State.writer is not None:
        metrics.log_lines_dropped.inc(_State.writer.take_dropped())


class _Lines:
    """What structlog hands its rendered lines to."""

    def __init__(self, writer: LogWriter) -> None:
        self._write = writer.write

    def msg(self, line: str) -> None:
        self._write(line + "\n")

    debug = info = warning = error = critical = exception = msg


class _Handler(logging.StreamHandler[LogWriter]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Write a line without the record's arguments, because they cannot be rendered."""
        self.stream.write(f"{UNRENDERABLE} logger={record.name!a} message={record.msg!a:.500}\n")


def _never_raising(log_level: str) -> type[Any]:
    base: Any = structlog.make_filtering_bound_logger(log_level)

    class Logger(base):  # type: ignore[misc]
        def _proxy_to_logger(self, method_name: str, event: str | None = None, **facts: object) -> object:
            try:
                return super()._proxy_to_logger(method_name, event, **facts)
            except Exception as error:  # noqa: BLE001 - a fact whose repr() raises must not end its caller
                with contextlib.suppress(Exception):
                    self._logger.msg(f"{UNRENDERABLE} event={event!a:.500} error={type(error).__name__}")
                return None

    return Logger


def _notice(processors: list[structlog.typing.Processor]) -> Callable[[int], str]:
    def render(lines: int) -> str:
        event: Any = {"event": "logs.lines_dropped", "lines": lines}
        for processor in processors:
            event = processor(None, "warning", event)
        return f"{event}\n"

    return render


def _writer_of_process(stderr: int | None) -> LogWriter:
    """Open the writer, once: loggers keep the writer that they were first used with."""
    if _State.writer is None:
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        # A duplicate, so that a library that closes stderr does not end the log.
        _State.writer = LogWriter(None if stderr is None else os.dup(stderr), encoding=encoding)
        atexit.register(_State.writer.close)
    return _State.writer


def _stderr() -> int | None:
    """Descriptor of stderr, or None when the process was started without one."""
    for stream in (sys.stderr, sys.__stderr__):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            descriptor: int = stream.fileno()  # type: ignore[union-attr]
            os.fstat(descriptor)
            return descriptor
    return None
