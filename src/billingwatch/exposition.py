"""The text of `/metrics`: rendered once for all requests that wait for it, because anybody may ask for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

FEW = 8  # requests that share a text; a text that more of them share is kept
KEPT_SECONDS = 1.0  # that such a text answers further requests


class Exposition:
    """Renders the metrics of the process, or of all server processes of a run. `gauge` brings the gauges up to date."""

    def __init__(self, gauge: Callable[[], Awaitable[None]]) -> None:
        self._gauge = gauge
        self._rendering: asyncio.Task[bytes] | None = None
        self._sharing = 0
        self._kept_until = float("-inf")

    async def text(self) -> bytes:
        """Return a text whose rendering is under way or begins now; after a flood, one that is at most `KEPT_SECONDS` old."""
        if self._rendering is None or (self._rendering.done() and asyncio.get_running_loop().time() >= self._kept_until):
            self._sharing = 0
            self._rendering = asyncio.create_task(self._render(), name="metrics")
        self._sharing += 1
        return await asyncio.shield(self._rendering)

    async def close(self) -> None:
        """Cancel a rendering that is under way."""
        if self._rendering is not None:
            self._rendering.cancel()
            await asyncio.gather(self._rendering, return_exceptions=True)

    async def _render(self) -> bytes:
        await self._gauge()
        registry = REGISTRY
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        text = generate_latest(registry)
        if self._sharing > FEW:
            self._kept_until = asyncio.get_running_loop().time() + KEPT_SECONDS
        return text
