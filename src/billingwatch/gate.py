"""A gate for requests of strangers, so that a flood of them over many connections does not fill the event loop."""

from __future__ import annotations

import asyncio

PER_TURN = 1  # requests; each takes about 0.3 ms of the event loop


class Gate:
    """Lets at most `per_turn` requests pass in a turn of the event loop, in the order in which they came.

    Without it, thousands of connections are answered in one turn, and a delivery needs about five turns.
    """

    def __init__(self, *, per_turn: int = PER_TURN) -> None:
        self._slots = asyncio.Semaphore(per_turn)

    async def enter(self) -> None:
        """Return when it is the request's turn."""
        async with self._slots:
            await asyncio.sleep(0)
