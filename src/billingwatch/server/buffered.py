"""The protocol that asyncio sees: it reads into a buffer that all connections of the process share."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from billingwatch.server.protocol import HttpConnection


class ServerConnection(asyncio.BufferedProtocol):
    """What uvicorn creates for each connection. HttpConnection is an asyncio.Protocol, which cannot share a buffer."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._http = HttpConnection(config, server_state, app_state, _loop)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._http.connection_made(transport)  # type: ignore[arg-type] # uvicorn narrows it to Transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio passes it
        return self._http.room()

    def buffer_updated(self, nbytes: int) -> None:
        self._http.received(nbytes)

    def eof_received(self) -> None:
        """Let the transport close, as uvicorn does."""

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._http.connection_lost(exc)
