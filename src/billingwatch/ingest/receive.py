"""Receiving one webhook: resolve, limit, verify, decode, record. It returns when the event is committed, or raises why it is not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from billingwatch.errors import DatabaseUnavailable, EventMalformed, Overloaded, TenantSuspended, WebhookTokenUnknown
from billingwatch.ingest.envelope import read_envelope
from billingwatch.ingest.rate_limit import RateLimit
from billingwatch.ingest.recorder import Delivery, Recorded, Records
from billingwatch.ingest.signature import verify
from billingwatch.tenancy.registry import Registry

BODY_LIMIT = 1024 * 1024  # bytes


class Receiver:
    """Turns deliveries into recorded events."""

    def __init__(self, registry: Registry, rate_limit: RateLimit, recorder: Records, clock: Callable[[], datetime]) -> None:
        self._registry = registry
        self._rate_limit = rate_limit
        self._recorder = recorder
        self._clock = clock

    async def receive(self, token: str, body: bytes, signature: str | None) -> Recorded:
        """Record one delivery.

        Raises WebhookTokenUnknown, TenantSuspended, RateLimited, TenantUnconfigured, SignatureInvalid, EventMalformed, Overloaded.
        """
        received_at = self._clock()
        try:
            tenant = await self._registry.by_webhook_token(token)
        except DatabaseUnavailable as error:
            raise Overloaded(reason=str(error)) from error
        if tenant is None:
            raise WebhookTokenUnknown
        if tenant.status != "active":
            raise TenantSuspended
        self._rate_limit.admit(tenant)
        try:
            payload = body.decode()
        except UnicodeDecodeError as error:
            raise EventMalformed(reason="it is not UTF-8") from error
        signed_at = verify(payload, signature, tenant.secrets, as_of=received_at)
        envelope = read_envelope(body)
        return await self._recorder.record(
            Delivery(
                tenant=tenant,
                envelope=envelope,
                disposition=envelope.disposition(tenant.mode),
                payload=payload,
                received_at=received_at,
                signed_at=signed_at,
            )
        )
