"""Fixtures of ingest: recorders, what they stored, and a way to take the database away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from billingwatch.ingest.recorder import Recorder
from billingwatch.tenancy.lanes import Lane, Lanes
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.tenants import Tenant

MakeRecorder = Callable[..., Recorder]
Rows = Callable[[Tenant, str], Awaitable[list[tuple[Any, ...]]]]


@pytest.fixture
async def make_recorder(database) -> AsyncIterator[MakeRecorder]:
    made: list[Recorder] = []

    def make(*, lanes: int = 1, queue_limit: int = 1000, dsn: str = database, on_recorded=lambda _: None, **lane_options: int) -> Recorder:
        made.append(
            Recorder(
                Lanes(lambda number: Lane(dsn, f"ingest {number}", **lane_options), lanes), queue_limit=queue_limit, on_recorded=on_recorded
            )
        )
        return made[-1]

    yield make
    for recorder in made:
        await recorder.close()


@pytest.fixture
async def rows(connect) -> Rows:
    """Rows of a query in a tenant's schema."""
    connection = await connect()

    async def read(tenant: Tenant, query: str) -> list[tuple[Any, ...]]:
        async with tenant_scope(connection, tenant, readonly=True) as scoped:
            return [tuple(row) for row in await scoped.fetch(query)]

    return read


@pytest.fixture
async def pending(control) -> Callable[[], Awaitable[list[tuple[int, str]]]]:
    """(tenant_id, event_id) of what waits for processing, in the order of arrival."""

    async def read() -> list[tuple[int, str]]:
        return [tuple(row) for row in await control.fetch("SELECT tenant_id, event_id FROM control.pending_events ORDER BY position")]

    return read


class Road:
    """The way to the database, which can be cut and mended; `dsn` leads over it."""

    def __init__(self, dsn: str) -> None:
        parts = urlsplit(dsn)
        self._host, self._port = parts.hostname, parts.port
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._parts = parts
        self._at = 0

    @property
    def dsn(self) -> str:
        return self._parts._replace(netloc=self._parts.netloc.replace(f":{self._port}", f":{self._at}")).geturl()

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._travel, "127.0.0.1", self._at)
        self._at = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self._server:
            self._server.close()
            for writer in list(self._open):
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for writer in list(self._open)), return_exceptions=True)
            self._server = None

    async def _travel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, self._port)
        ends = {writer, back}
        self._open |= ends

        async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
            except OSError:
                pass
            finally:
                target.close()

        await asyncio.gather(carry(reader, back), carry(there, writer))
        self._open -= ends


@pytest.fixture
async def road(database) -> AsyncIterator[Road]:
    road = Road(database)
    await road.mend()
    yield road
    await road.cut()
