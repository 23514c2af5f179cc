"""Limits of the HTTP server: bytes, seconds and connections of one process."""

from __future__ import annotations

import contextlib
import resource

import msgspec

BACKLOG = 2048  # connections that the kernel holds until the process accepts them
FILES_RESERVED = 64  # descriptors for logs, static files, listeners and the event loop
CONNECTIONS_LEAST = 16  # connections that a process accepts however few descriptors it may open
MAC_FILES_LIMIT = 10_240  # macOS reports an unlimited hard limit and accepts no soft limit above this one


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one process holds for its senders. The defaults are the product's; tests pass shorter times."""

    connections: int = 4096
    header_bytes: int = 64 * 1024  # of a request without its body: request line, headers, chunk sizes, trailers
    header_seconds: float = 10.0  # from the connection, or a later request's first byte, to the end of the headers
    stall_seconds: float = 10.0  # without a byte of an unfinished body, or without a byte taken of an answer
    body_seconds: float = 60.0  # from the end of the headers to the end of the body
    idle_seconds: float = 5.0  # between an answer and the next request
    linger_seconds: float = 5.0  # for a refused sender to read its answer
    # Bytes that are read and dropped after an answer, so that a sender that is still sending gets it.
    linger_bytes: int = 16 * 1024 * 1024
    refused_bytes: int = 256 * 1024  # the same after a refusal by the server itself
    unsent_bytes: int = 64 * 1024 * 1024  # of all answers that their readers have not taken; more close the oldest of them
    sweep_seconds: float = 1.0  # between two checks of all deadlines


def raise_files_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one. Return the limit that now holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, MAC_FILES_LIMIT):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            break
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def connections_within(wanted: int, files: int, *, database_connections: int) -> int:
    """Return the number of connections to accept: `wanted`, or fewer if `files` descriptors leave less room.

    One accept call may take a whole backlog before the descriptors of closed connections are free again.
    """
    if files == resource.RLIM_INFINITY:
        return wanted
    burst = min(BACKLOG, files // 4)
    return max(CONNECTIONS_LEAST, min(wanted, files - burst - FILES_RESERVED - database_connections))
