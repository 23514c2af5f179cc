"""A clock that jumps ahead by two days and back.

The service runs under `shifted`, which replaces the one function that reads the time. The sender's clock is
right. libfaketime would need LD_PRELOAD and a package; the machine's clock is the sender's, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from billingwatch.lab.faults.scenario import Scenario
from billingwatch.lab.faults.scene import Scene
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "clock.sql")

JUMP = 2 * 86_400  # seconds
RESCHEDULE_WAIT = 20.0  # seconds


@asynccontextmanager
async def jump(scene: Scene) -> AsyncIterator[None]:
    """Set the service's clock ahead, and back at the end. No visit may then stay planned two days ahead."""
    scene.clock.write_text(str(JUMP), encoding="ascii")
    try:
        yield
    finally:
        scene.clock.write_text("0", encoding="ascii")
    async with scene.stage.control() as control:
        deadline = time.monotonic() + RESCHEDULE_WAIT
        while overdue := await control.fetchval(sql["overdue"]):
            if time.monotonic() > deadline:
                scene.notes.append(f"detectors of {overdue} tenants stay planned more than 2 hours ahead")
                return
            await asyncio.sleep(0.2)


SCENARIOS = (
    Scenario(
        name="clock-jump",
        summary="the service's clock jumps 2 days ahead and back; signatures are refused in between",
        ready="200: the service cannot notice that its clock is wrong",
        strike=jump,
        shifted_clock=True,
        blind=True,
        seconds=5,
    ),
)
