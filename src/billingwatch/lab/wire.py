"""One HTTP/1.1 connection of the load process: keep-alive, one request at a time, as little work as HTTP allows.

The load shares the cores with what it measures, and this costs a tenth of a general client. It reads what the servers under test send,
answers with a Content-Length, and takes anything else for a broken connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_STATUS = slice(9, 12)
_END_OF_HEAD = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """Calls `answered` with itself and the status of each answer, and `lost` once, whoever closed it."""

    def __init__(self, answered: Callable[[Connection, int], None], lost: Callable[[Connection], None]) -> None:
        self._answered = answered
        self._lost = lost
        self._transport: asyncio.Transport
        self._received = b""

    def send(self, request: bytes) -> None:
        self._transport.write(request)

    def close(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        end = received.find(_END_OF_HEAD)
        if end < 0:
            return
        length = _LENGTH.search(received, 0, end + 2)
        if length is None:
            self.close()
        elif len(received) >= end + len(_END_OF_HEAD) + int(length[1]):
            self._received = b""
            self._answered(self, int(received[_STATUS]))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio passes it
        self._lost(self)
