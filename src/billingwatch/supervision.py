"""Supervised tasks: a background task that must keep running is restarted when it ends, and its state is visible."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger()

RESTART_PAUSES = (0.1, 0.5, 2.0, 5.0)  # seconds before the first, second, … restart in a row
STABLE_SECONDS = 30.0  # after a run of this length the pauses begin with the first one again


class Pauses:
    """How long to wait before the next restart; the pauses grow while the runs are short."""

    def __init__(self) -> None:
        self.failures = 0

    def after(self, seconds: float) -> float:
        """Return the pause after a run of this length."""
        self.failures = 1 if seconds >= STABLE_SECONDS else self.failures + 1
        return RESTART_PAUSES[min(self.failures, len(RESTART_PAUSES)) - 1]


class SupervisedTask:
    """A background task that runs until `finish` or `stop`. A run that ends early is logged and restarted.

    `run` is called once per start, so state that must survive a restart belongs to the object that owns `run`.
    KeyboardInterrupt and SystemExit end the program, and a cancellation of the task itself ends the task.
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

    def expect_end(self) -> None:
        """Do not restart a run that ends from now on. For a caller that ends several tasks and then waits."""
        self._finishing = True

    async def finish(self, *, within: float | None = None) -> None:
        """Wait until `run` returns, and cancel it after `within` seconds. The caller has to make `run` end."""
        self._finishing = True
        if self._task is None:
            return
        await asyncio.wait({self._task}, timeout=within)
        if not self._task.done():
            log.warning("supervision.task_cancelled", task=self.name, seconds=within)
            await self.stop()

    async def stop(self) -> None:
        """Cancel the run and wait for its end."""
        self._finishing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        pauses = Pauses()
        while True:
            began = loop.time()
            reason: BaseException | None = None
            self._alive = True
            try:
                await self._run()
            except (KeyboardInterrupt, SystemExit):
                raise
            except asyncio.CancelledError as error:
                # stop() and the end of the event loop cancel this task; the cancellation of a future that `run`
                # awaited is a failure.
                if self._finishing or _cancelled():
                    raise
                reason = error
            except BaseException as error:  # noqa: BLE001 - every other end of a run leads to a restart
                reason = error
            finally:
                self._alive = False
            if self._finishing and reason is None:
                return
            pause = pauses.after(loop.time() - began)
            log.error("supervision.task_ended", task=self.name, failures=pauses.failures, exc_info=reason)
            if self._finishing:
                return
            self.restarts += 1
            await asyncio.sleep(pause)


def _cancelled() -> bool:
    """Return True when the current task itself was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
