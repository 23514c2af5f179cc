"""Answers that the server gives without the application; each closes the connection."""

from __future__ import annotations


def _refusal(status: bytes, title: str, *headers: bytes) -> bytes:
    body = b'{"status":%b,"title":"%b"}' % (status[:3], title.encode())
    lines = [
        b"HTTP/1.1 " + status,
        b"content-type: application/problem+json",
        b"content-length: %d" % len(body),
        b"connection: close",
        *headers,
    ]
    return b"\r\n".join([*lines, b"", body])


BAD_REQUEST = _refusal(b"400 Bad Request", "Bad request")
TIMEOUT = _refusal(b"408 Request Timeout", "Request not complete in time")
TOO_LARGE = _refusal(b"431 Request Header Fields Too Large", "Headers too large")
FULL = _refusal(b"503 Service Unavailable", "Unavailable", b"retry-after: 5")
