"""HTTP/1.1 connections: uvicorn's protocol with a bound on each byte and second that a sender can take.

A read takes at most 16 KiB. The parser therefore appends to a long header a few times only, and no body grows
before its handler runs.
"""

from __future__ import annotations

import asyncio
import math
import socket
from enum import Enum, auto
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from billingwatch.server.answers import BAD_REQUEST, FULL, TIMEOUT, TOO_LARGE
from billingwatch.server.connections import READ_SIZE, STATE_KEY, Connections

# Bytes that the kernel takes of an answer at once; Linux doubles it. Without a bound it takes 2.5 MB of each reader's.
SEND_BUFFER = 64 * 1024


class _State(Enum):
    IDLE = auto()  # no byte of a request
    HEAD = auto()  # within the headers
    BODY = auto()  # within the body, answered or not
    COMPLETE = auto()  # request complete, answer not
    ENDED = auto()  # what still arrives is dropped


class _AnswerTransport(asyncio.Transport):
    """The transport that answers are written to. Its `close` reads on for a moment if the request is not complete."""

    def __init__(self, connection: HttpConnection) -> None:
        super().__init__()
        self._connection = connection

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._connection.transport.write(data)

    def is_closing(self) -> bool:
        return self._connection.transport.is_closing()

    def close(self) -> None:
        self._connection.close_after_answer()


class HttpConnection(HttpToolsProtocol):
    """One connection. A second request before the first answer is dropped, and the connection ends after that answer."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.deadline = math.inf
        self._connections: Connections = app_state[STATE_KEY]
        self._limits = self._connections.limits
        self._buffer: memoryview = self._connections.buffer
        self._answer_transport = _AnswerTransport(self)
        self._state = _State.IDLE
        self._begun = False  # the deadline of the request's headers is set
        self._overhead = 0  # bytes of the request that are not body
        self._body_read = 0  # bytes of body in the present read
        self._body_deadline = math.inf
        self._dropped = 0  # bytes of an answered or refused request
        self._unsent = math.inf  # bytes in the transport's write buffer at the last deadline

    # The transport's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.deadline = self.loop.time() + self._limits.header_seconds
        if not self._connections.admit(self):
            self._connections.closed("full", self._client)
            self._state = _State.ENDED
            transport.write(FULL)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connections.remove(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._connections.unsent(self, self.transport.get_write_buffer_size())
        if self._state is _State.COMPLETE:
            self._unsent = math.inf
            self.deadline = self.loop.time() + self._limits.stall_seconds

    def resume_writing(self) -> None:
        super().resume_writing()
        self._connections.sent(self)
        if self._state is _State.COMPLETE:
            self.deadline = math.inf

    def room(self) -> memoryview:
        """Return where the next read goes: no more than what the headers may still take."""
        left = self._limits.header_bytes - self._overhead
        if left >= READ_SIZE or self._state in {_State.BODY, _State.ENDED}:
            return self._buffer
        return self._buffer[:left]  # at least one byte: at zero the request was refused

    def received(self, size: int) -> None:
        """Parse `size` bytes of the shared buffer."""
        if self._ended:
            self._drop(size)
            return
        self._body_read = 0
        try:
            self.parser.feed_data(self._buffer[:size])
        except httptools.HttpParserUpgrade:
            # The request is served as plain HTTP; what follows it is another protocol.
            self._end_after_answer()
            return
        except httptools.HttpParserError:
            if not self._ended:
                self._refuse(BAD_REQUEST, "malformed")
            return
        if self._state is _State.COMPLETE:
            self.deadline = math.inf
            self._connections.works(self)
        elif not self._ended:
            self._wait_for_more(size)

    # The parser's callbacks

    def on_message_begin(self) -> None:
        if self._state in {_State.COMPLETE, _State.ENDED}:
            self._end_after_answer()
            return
        super().on_message_begin()
        self._state = _State.HEAD
        self._begun = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. Trailers are dropped: the handler reads the headers while the body still arrives."""
        if self._state is _State.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._state is not _State.HEAD:
            return
        super().on_headers_complete()
        self.cycle.transport = self._answer_transport
        self._state = _State.BODY
        self._body_deadline = math.inf

    def on_body(self, body: bytes) -> None:
        if self._state is not _State.BODY:
            return
        self._body_read += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._state is not _State.BODY:
            return
        super().on_message_complete()
        self._overhead = 0
        self._dropped = 0
        self._state = _State.IDLE if self.cycle.response_complete else _State.COMPLETE

    # The answer's callbacks

    def on_response_complete(self) -> None:
        """Count the request and wait for the next one. Uvicorn's version also starts pipelined requests and a timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self._state is _State.ENDED:
            return
        self.flow.resume_reading()
        self.cycle.body = bytearray()
        now = self.loop.time()
        if self._state is _State.COMPLETE:
            self._state = _State.IDLE
            self.deadline = now + self._limits.idle_seconds
        else:
            self.deadline = now + self._limits.linger_seconds
        self._connections.waits(self)

    def close_after_answer(self) -> None:
        """Close the connection. An unread rest of the request is read first, so that the sender gets the answer."""
        if self._state is _State.COMPLETE:
            self._close()
        else:
            self._linger()

    # Deadlines

    def expire(self, now: float) -> None:
        if self.transport.is_closing() or self._state in {_State.COMPLETE, _State.ENDED}:
            self._abort_unless_sending(now)
        elif self._state is _State.IDLE:
            self._close()
        elif self._state is _State.HEAD:
            self._refuse(TIMEOUT, "header_timeout")
        elif self.cycle.response_complete:
            self.transport.abort()
        elif self.flow.read_paused:
            # The handler has not taken what arrived, so that the sender cannot send more.
            self.deadline = now + self._limits.stall_seconds
        else:
            self._refuse(TIMEOUT, "body_timeout")

    def evict(self) -> None:
        self._connections.closed("evicted", self._client)
        self._detach_request()
        self._state = _State.ENDED
        self.transport.abort()

    @property
    def _ended(self) -> bool:
        return self._state is _State.ENDED

    @property
    def _client(self) -> str | None:
        return self.client[0] if self.client else None

    def _wait_for_more(self, size: int) -> None:
        """Count and bound what was read, because the request is not complete."""
        now = self.loop.time()
        self._overhead += size - self._body_read
        if self._overhead >= self._limits.header_bytes:
            self._refuse(TOO_LARGE, "header_too_large")
        elif self._state is _State.HEAD:
            # The first request of a connection has the deadline that the connection began with.
            if not self._begun and self.cycle is not None:
                self.deadline = now + self._limits.header_seconds
            self._begun = True
        elif self._state is _State.BODY:
            self._wait_for_body(now)

    def _wait_for_body(self, now: float) -> None:
        if self.cycle.response_complete:
            self._dropped += self._body_read
            if self._dropped > self._limits.linger_bytes:
                self.transport.abort()
            return
        if self._body_deadline == math.inf:
            self._body_deadline = now + self._limits.body_seconds
            self._connections.uploads(self)
        self.deadline = min(now + self._limits.stall_seconds, self._body_deadline)
        if len(self.cycle.body) >= READ_SIZE:
            self.flow.pause_reading()  # until the handler takes it

    # Ends

    def _refuse(self, answer: bytes, reason: str) -> None:
        """Answer with `answer` if nothing was answered yet, and close."""
        self._connections.closed(reason, self._client)
        if self._detach_request():
            self._dropped = max(0, self._limits.linger_bytes - self._limits.refused_bytes)
            self.transport.write(answer)
            self._linger()
        else:
            self.transport.abort()

    def _detach_request(self) -> bool:
        """End the handler's request as if the sender had hung up. Return False if its answer has begun."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        if cycle is None or cycle.response_complete:
            return True
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        return not self.cycle.response_started

    def _end_after_answer(self) -> None:
        """Drop what follows the present request."""
        if self.cycle is not None:
            self.cycle.keep_alive = False
        # The parser may find more headers in this read; they must not end up in the present request.
        self.headers = []
        self.url = b""
        self._state = _State.ENDED
        self.deadline = math.inf
        self._connections.works(self)

    def _linger(self) -> None:
        self._state = _State.ENDED
        self.deadline = self.loop.time() + self._limits.linger_seconds
        self._connections.waits(self)
        if not self.transport.is_closing():
            self.transport.write_eof()
            self.flow.resume_reading()

    def _close(self) -> None:
        self._state = _State.ENDED
        self._unsent = self.transport.get_write_buffer_size()
        self.deadline = self.loop.time() + self._limits.stall_seconds
        self._connections.waits(self)
        self.transport.close()

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > self._limits.linger_bytes:
            self._detach_request()
            self.transport.abort()

    def _abort_unless_sending(self, now: float) -> None:
        unsent = self.transport.get_write_buffer_size()
        if 0 < unsent < self._unsent:
            self._unsent = unsent
            self.deadline = now + self._limits.stall_seconds
            return
        self._detach_request()
        self.transport.abort()
