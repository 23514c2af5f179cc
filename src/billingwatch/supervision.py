"""Supervised tasks: a background task that must keep running is restarted when it ends, and its state is visible."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger()

RESTART_PAUSES = (0.1, 0.5, 2.0, 5.0)  # seconds before the first, second, … restart in a row
STABLE_SECONDS = 30.0  # after a run of this length the pauses begin with the first one again


class SupervisedTask:
    """A background task that runs until `finish` or `stop`. A run that raises or returns early is logged and started again.

    `run` is called once per start, so state that must survive a restart belongs to the object that owns `run`.
    """

    def __init__(self, name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.name = name
        self.restarts = 0
        self._run = run
        self._alive = False
        self._finishing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """True while a run is under way; False before the start, between two runs and after the end."""
        return self._alive and self._task is not None and not self._task.done()

    def start(self) -> None:
        self._task = asyncio.create_task(self._supervise(), name=self.name)

    async def finish(self) -> None:
        """Wait until `run` returns by itself. The caller has told `run` to end; an error of the last run is logged."""
        self._finishing = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def stop(self) -> None:
        """Cancel the run and wait for its end."""
        self._finishing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            reason: BaseException | None = None
            self._alive = True
            try:
                await self._run()
            except asyncio.CancelledError as error:
                # A cancellation that did not come from stop() is a failure like any other.
                if self._finishing:
                    raise
                reason = error
            except BaseException as error:  # noqa: BLE001 - whatever ended the run, the task has to run again
                reason = error
            finally:
                self._alive = False
            if self._finishing and reason is None:
                return
            failures = 1 if loop.time() - began >= STABLE_SECONDS else failures + 1
            log.error("supervision.task_ended", task=self.name, failures=failures, exc_info=reason)
            if self._finishing:
                return
            self.restarts += 1
            await asyncio.sleep(RESTART_PAUSES[min(failures, len(RESTART_PAUSES)) - 1])
