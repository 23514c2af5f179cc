"""Streams over processes: each process measures one stream after the other, and tells the parent of every day that it has lived through."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from queue import Empty
from typing import Protocol

import structlog

from billingwatch.lab.quality.measure import Measured, measure
from billingwatch.lab.quality.plan import Stream
from billingwatch.settings import Settings
from billingwatch.tenancy.sealing import Seal, open_seal

LOOK_EVERY = 0.5  # seconds between two looks at how far the processes are


class _Days(Protocol):
    def put(self, item: float, /) -> None: ...

    def get_nowait(self) -> float: ...


def measure_all(
    streams: Sequence[Stream], dsn: str, settings: Settings, processes: int, on_progress: Callable[[float, float], None]
) -> list[Measured]:
    """Measure the streams, begun in the order given, and give them as they end; `on_progress` gets how much is done of how much."""
    with _pool(dsn, settings, processes) as (pool, days):
        futures = [pool.submit(_measure, stream) for stream in streams]
        return _gather(futures, days, sum(stream.size for stream in streams), on_progress)


class _Process:
    """What a process of the pool was started with."""

    dsn: str
    seal: Seal
    days: _Days


@contextmanager
def _pool(dsn: str, settings: Settings, processes: int) -> Iterator[tuple[ProcessPoolExecutor, _Days]]:
    context = multiprocessing.get_context("spawn")
    days: _Days = context.Queue()
    pool = ProcessPoolExecutor(processes, context, _begin, (dsn, settings, days))
    try:
        yield pool, days
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        # Nobody waits for streams that are half done, and the database is about to go.
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    pool.shutdown()


def _begin(dsn: str, settings: Settings, days: _Days) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which ends us
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    _Process.dsn, _Process.seal, _Process.days = dsn, open_seal(settings), days


def _measure(stream: Stream) -> Measured:
    day = stream.size / stream.days
    return asyncio.run(measure(stream, _Process.dsn, _Process.seal, lambda: _Process.days.put(day)))


def _gather(futures: Sequence[Future[Measured]], days: _Days, size: float, on_progress: Callable[[float, float], None]) -> list[Measured]:
    done, waiting, so_far = [], set(futures), 0.0
    while waiting:
        finished, waiting = wait(waiting, LOOK_EVERY, FIRST_COMPLETED)
        done += [future.result() for future in finished]
        try:
            while True:
                so_far += days.get_nowait()
        except Empty:
            on_progress(min(so_far, size) if waiting else size, size)
    return done
