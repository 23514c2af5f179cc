"""Faults of the network: senders reset their connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from billingwatch.lab.faults.scenario import Scenario, Strike
from billingwatch.lab.faults.scene import Scene
from billingwatch.lab.faults.stream import Cut


def reset(cut: Cut) -> Strike:
    """Return a strike that lets each third delivery be reset by its sender, and delivered again later."""

    @asynccontextmanager
    async def strike(scene: Scene) -> AsyncIterator[None]:
        scene.stream.cut = cut
        try:
            yield
        finally:
            scene.stream.cut = None

    return strike


SCENARIOS = (
    Scenario(
        name="reset-in-body",
        summary="each third delivery ends with a reset in the middle of its body",
        ready="200",
        strike=reset("body"),
        seconds=5,
    ),
    Scenario(
        name="reset-before-answer",
        summary="each third delivery is sent in full, and reset before the answer",
        ready="200",
        strike=reset("answer"),
        seconds=5,
        quick=1,
    ),
)
