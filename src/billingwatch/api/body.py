"""The body of a delivery: read after the tenant is known, and bounded."""

from __future__ import annotations

from litestar.types import Receive

from billingwatch.errors import BodyTooLarge
from billingwatch.ingest.body_budget import SMALL_BODY, BodyBudget

EVENT_LIMIT = 1024 * 1024  # bytes; an event of Stripe is smaller
_DIGITS = 10  # of a declared length; more are too large in any case


class ClientGoneError(Exception):
    """The sender closed the connection, or was refused, before the body was complete."""


class Body:
    """The body of one request. Call `release` when the request is answered."""

    def __init__(self, headers: dict[bytes, bytes], budget: BodyBudget) -> None:
        declared = headers.get(b"content-length")
        self._budget = budget
        self._declared = None if declared is None or not declared.isdigit() else int(declared[: _DIGITS + 1])
        self._chunked = b"transfer-encoding" in headers
        self._counted = 0  # bytes
        self._tenant_id = 0
        self.complete = False

    @property
    def may_be_large(self) -> bool:
        return self._chunked or (self._declared is not None and self._declared > SMALL_BODY)

    async def read(self, receive: Receive, tenant_id: int) -> bytes:
        """Return the whole body. Raises BodyTooLarge, BodiesFull, ClientGoneError."""
        self._tenant_id = tenant_id
        if self._declared is not None and self._declared > SMALL_BODY:
            self._count(self._declared)
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            if message["type"] != "http.request":
                continue
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > SMALL_BODY and not self._counted:
                self._count(EVENT_LIMIT)
            if size > EVENT_LIMIT:
                raise BodyTooLarge(limit=EVENT_LIMIT)
            chunks.append(chunk)
            if not message.get("more_body", False):
                self.complete = True
                return b"".join(chunks)

    def release(self) -> None:
        if self._counted:
            self._budget.give_back(self._tenant_id, self._counted)
            self._counted = 0

    def _count(self, size: int) -> None:
        if size > EVENT_LIMIT:
            raise BodyTooLarge(limit=EVENT_LIMIT)
        self._budget.take(self._tenant_id, size)
        self._counted = size
