"""The body of a delivery: read after the tenant is known, and bounded."""

from __future__ import annotations

from litestar.types import Receive

from billingwatch.errors import BodyTooLarge
from billingwatch.ingest.body_budget import SMALL_BODY, BodyBudget

EVENT_LIMIT = 1024 * 1024  # bytes; an event of Stripe is smaller
STEP = 64 * 1024  # bytes by which a large body's share of the budget grows as it arrives
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
        if self._declared is not None and self._declared > EVENT_LIMIT:
            raise BodyTooLarge(limit=EVENT_LIMIT)
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
            if size > EVENT_LIMIT:
                raise BodyTooLarge(limit=EVENT_LIMIT)
            if size > max(SMALL_BODY, self._counted):
                self._count(size)
            chunks.append(chunk)
            if not message.get("more_body", False):
                self.complete = True
                return b"".join(chunks)

    def release(self) -> None:
        if self._counted:
            self._budget.give_back(self._tenant_id, self._counted)
            self._counted = 0

    def _count(self, size: int) -> None:
        """Count what has arrived, not what was declared: a sender that sends nothing takes nothing from the others."""
        counted = -(-size // STEP) * STEP
        self._budget.take(self._tenant_id, counted - self._counted)
        self._counted = counted
