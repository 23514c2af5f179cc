"""Fixtures of the server: our connections in front of a small application, and senders that write raw bytes."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from billingwatch.server.config import server_config
from billingwatch.server.connections import STATE_KEY, Connections
from billingwatch.server.limits import Limits

PATIENCE = 20.0  # seconds a test waits for an event
LARGE = 32 * 1024 * 1024  # bytes of the large answer; no socket buffer holds it


class Application:
    """Answers with the size of the body; `/early` does not read it, `/large` sends 32 MiB, `/held` waits for `release`."""

    def __init__(self, limits: Limits) -> None:
        self.connections = Connections(limits)
        self.bodies: list[int] = []
        self.gone = threading.Event()
        self.held = threading.Event()
        self._released: asyncio.Event
        self._loop: asyncio.AbstractEventLoop

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self._released.set)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        size = 0
        more = scope["path"] != "/early"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.set()
                return
            size += len(message["body"])
            more = message["more_body"]
        self.bodies.append(size)
        if scope["path"] == "/held":
            self.held.set()
            await self._released.wait()
        text = b"x" * LARGE if scope["path"] == "/large" else str(size).encode()
        headers = [(b"content-length", str(len(text)).encode())]
        if scope["query_string"] == b"close":
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, len(text), 1024 * 1024):
            chunk = text[start : start + 1024 * 1024]
            await send({"type": "http.response.body", "body": chunk, "more_body": start + len(chunk) < len(text)})

    async def _live(self, scope: Any, receive: Any, send: Any) -> None:
        scope["state"][STATE_KEY] = self.connections
        self._released, self._loop = asyncio.Event(), asyncio.get_running_loop()
        await receive()
        sweep = asyncio.create_task(self.connections.run())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        sweep.cancel()
        await send({"type": "lifespan.shutdown.complete"})


class Sender:
    """One raw connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_until_cut(self, piece: bytes, limit: int) -> int:
        """Send `piece` again and again until the other side ends the connection; return the bytes sent, at most `limit`."""
        sent = 0
        while sent < limit:
            try:
                self.socket.sendall(piece)
            except OSError:
                break
            sent += len(piece)
        return sent

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer with a Content-Length."""
        head, _, body = self._until(lambda data: b"\r\n\r\n" in data).partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        pieces = [body]
        left = int(headers["content-length"]) - len(body)
        while left > 0:
            pieces.append(self.socket.recv(65536))
            assert pieces[-1], "the answer is not complete"
            left -= len(pieces[-1])
        return int(lines[0].split()[1]), headers, b"".join(pieces)

    def rest(self) -> bytes:
        """Read until the other side closes; a reset ends the reading, too."""
        return self._until(lambda _: False)

    @property
    def closed(self) -> bool:
        """True once the other side has closed; reads what there is."""
        self.socket.settimeout(0.01)
        try:
            return self.socket.recv(65536) == b""
        except TimeoutError:
            return False
        except OSError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)

    def _until(self, enough: Callable[[bytes], bool]) -> bytes:
        data = b""
        while not enough(data):
            try:
                piece = self.socket.recv(65536)
            except ConnectionError:
                break
            if not piece:
                break
            data += piece
        return data


class Server:
    def __init__(self, port: int, application: Application) -> None:
        self.application = application
        self.port = port
        self._senders: list[Sender] = []

    def connect(self) -> Sender:
        self._senders.append(Sender(self.port))
        return self._senders[-1]

    def close(self) -> None:
        for sender in self._senders:
            sender.socket.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", answers)]


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start a server with the given limits; the sweep is fast, so that a test waits for no second."""
    started: list[tuple[uvicorn.Server, threading.Thread, socket.socket, Server]] = []

    def start(**limits: Any) -> Server:
        listener = socket.create_server(("127.0.0.1", 0))
        application = Application(Limits(**{"sweep_seconds": 0.02, **limits}))
        server = uvicorn.Server(server_config(application, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        until(lambda: server.started)
        made = Server(listener.getsockname()[1], application)
        started.append((server, thread, listener, made))
        return made

    yield start
    for server, thread, listener, made in started:
        made.close()
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()
        assert not thread.is_alive()
