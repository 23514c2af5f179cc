"""Attacks over HTTP. An attack that the service ends by closing the connection begins again on a new one."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from billingwatch.lab.faults.scene import AttackOrder
from billingwatch.lab.load import HOST
from billingwatch.lab.wire import Connection

HEADER_BYTES = 100 << 20
HEADER_CHUNK = 64 << 10
BODIES = 400
BODY_BYTES = 1 << 20
TRICKLE_EVERY = 1.0  # seconds
IDLE = 2000
HALF_HEADERS = 2000
OPENED_AT_ONCE = 100
AGAIN_AFTER = 0.1  # seconds
FILES = 10_000  # descriptors that the attacker asks for

Begun = Callable[[], None]


async def endless_header(order: AttackOrder, begun: Begun) -> None:
    """Send one header of 100 MiB, then the next."""
    begun()
    while True:
        try:
            _, writer = await asyncio.open_connection(HOST, order.port)
            writer.write(b"GET / HTTP/1.1\r\nX-Endless: ")
            for _ in range(HEADER_BYTES // HEADER_CHUNK):
                writer.write(b"a" * HEADER_CHUNK)
                await writer.drain()
            writer.close()
        except OSError:
            await asyncio.sleep(AGAIN_AFTER)


async def slow_bodies(order: AttackOrder, begun: Begun) -> None:
    """Announce bodies of 1 MiB over 400 connections, and send a byte of each every second."""
    head = f"POST {order.path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {BODY_BYTES}\r\n\r\n".encode()
    await _hold_many(order.port, [head] * BODIES, begun, trickle=b"a")


async def idle(order: AttackOrder, begun: Begun) -> None:
    """Hold 2,000 connections that send nothing, and 2,000 whose header does not end."""
    half = f"POST {order.path} HTTP/1.1\r\nHost: {HOST}\r\n".encode()
    await _hold_many(order.port, [b""] * IDLE + [half] * HALF_HEADERS, begun, trickle=b"")


async def _hold_many(port: int, openings: list[bytes], begun: Begun, *, trickle: bytes) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard), hard))
    free = asyncio.Semaphore(OPENED_AT_ONCE)

    async def hold(opening: bytes) -> None:
        while True:
            try:
                async with free:
                    reader, writer = await asyncio.open_connection(HOST, port)
                    writer.write(opening)
                answer = asyncio.create_task(reader.read(1))  # ends when the service answers or closes
                while not answer.done():
                    writer.write(trickle)
                    await writer.drain()
                    await asyncio.wait([answer], timeout=TRICKLE_EVERY)
                await answer
                writer.close()
            except OSError:
                await asyncio.sleep(AGAIN_AFTER)

    tasks = [asyncio.create_task(hold(opening)) for opening in openings]
    begun()
    await asyncio.gather(*tasks)


async def flood(
    order: AttackOrder,
    begun: Begun,
    *,
    connections: int,
    method: str = "GET",
    path: str = "",
    key: str = "",
    body: bytes = b"",
) -> None:
    """Send the same request over each connection as fast as the answers come."""
    bearer = key or order.key
    lines = [
        f"{method} {path or order.path} HTTP/1.1",
        f"Host: {HOST}",
        f"Content-Length: {len(body)}",
        *([f"Authorization: Bearer {bearer}"] if bearer else []),
    ]
    request = "\r\n".join([*lines, "", ""]).encode() + body
    loop = asyncio.get_running_loop()

    def resend(connection: Connection, _: int) -> None:
        connection.send(request)

    def end(ended: asyncio.Future[None], _: Connection) -> None:
        ended.set_result(None)

    async def repeat() -> None:
        while True:
            ended: asyncio.Future[None] = loop.create_future()
            make = partial(Connection, resend, partial(end, ended))
            with suppress(OSError):
                _, connection = await loop.create_connection(make, HOST, order.port)
                connection.send(request)
                await ended
            await asyncio.sleep(AGAIN_AFTER)

    tasks = [asyncio.create_task(repeat()) for _ in range(connections)]
    begun()
    await asyncio.gather(*tasks)
