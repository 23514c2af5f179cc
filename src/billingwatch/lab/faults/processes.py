"""Faults of the service's processes: kill -9, and what starts them again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from billingwatch.lab.faults.scenario import Scenario
from billingwatch.lab.faults.scene import Scene

_BACK = "no answer while the service is away; 200 within 20 s after its restart"


@asynccontextmanager
async def kill_service(scene: Scene) -> AsyncIterator[None]:
    """Kill the listening process, and start it again at the end, as systemd would."""
    os.kill(scene.deployment.service.pid, signal.SIGKILL)
    yield
    if not await asyncio.to_thread(scene.deployment.restart_service):
        scene.notes.append(f"the service does not start again: {scene.deployment.last_lines()}")


@asynccontextmanager
async def kill_worker(scene: Scene) -> AsyncIterator[None]:
    """Kill the separate `billingwatch worker`, and start it again at the end."""
    if scene.deployment.worker is not None:
        os.kill(scene.deployment.worker.pid, signal.SIGKILL)
    yield
    scene.deployment.restart_worker()


@asynccontextmanager
async def kill_worker_child(scene: Scene) -> AsyncIterator[None]:
    """Kill the `worker` process of `serve --workers 2`. The parent has to replace it."""
    os.kill(scene.deployment.worker_child, signal.SIGKILL)
    yield


SCENARIOS = (
    Scenario(
        name="service-killed",
        summary="kill -9 of `serve`, started again at the end",
        ready=_BACK,
        strike=kill_service,
        seconds=3,
        quick=0.5,
        away=True,
    ),
    Scenario(
        name="worker-killed",
        summary="kill -9 of `worker` next to `serve --no-worker`, started again at the end",
        ready="200; 503 only if events wait longer than 15 s",
        strike=kill_worker,
        layout="split",
        seconds=5,
    ),
    Scenario(
        name="worker-child-killed",
        summary="kill -9 of the `worker` that `serve --workers 2` started; the parent replaces it",
        ready="200, or 503 until the process is replaced",
        strike=kill_worker_child,
        layout="workers",
        seconds=5,
        quick=1,
    ),
    Scenario(
        name="parent-killed",
        summary="kill -9 of the parent of `serve --workers 2`, started again at the end",
        ready=_BACK,
        strike=kill_service,
        layout="workers",
        seconds=5,
        away=True,
    ),
)
