"""Receiving one delivery: resolve, verify, limit, decode, record. `receive` returns after the commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from billingwatch.errors import (
    DatabaseUnavailable,
    Overloaded,
    SecretKeyUnusable,
    SignatureInvalid,
    SignaturesLimited,
    TenantBeingRemoved,
    TenantUnconfigured,
    WebhookTokenUnknown,
)
from billingwatch.gate import Gate
from billingwatch.ingest.activity import Activity
from billingwatch.ingest.body_budget import BodyBudget
from billingwatch.ingest.envelope import MALFORMED, Envelope, decode_envelope, read_envelope, scan_envelope
from billingwatch.ingest.rate_limit import RateLimit, SignatureLimit
from billingwatch.ingest.record import Delivery, signed_text
from billingwatch.ingest.recorder import Recorded, Records
from billingwatch.ingest.signature import verify
from billingwatch.tenancy.registry import Registry
from billingwatch.tenancy.tenants import Tenant

UNREADABLE = "a secret of this tenant was encrypted with another key"  # and may be the one that signed the delivery
READ_INLINE = 32 * 1024  # bytes of a body; scanning a malformed one takes up to 12 ms here, and 390 ms at the limit


class Receiver:
    """Turns deliveries into recorded events. Call `resolve`, then read the body, then call `receive`."""

    def __init__(
        self, registry: Registry, rate_limit: RateLimit, recorder: Records, clock: Callable[[], datetime], activity: Activity
    ) -> None:
        self.activity = activity
        self.bodies = BodyBudget()
        self._registry = registry
        self._rate_limit = rate_limit
        self._signature_limit = SignatureLimit()
        self._recorder = recorder
        self._clock = clock
        self._gate = Gate()  # of unknown tokens and invalid signatures
        self._scanning = asyncio.Lock()

    async def resolve(self, token: str) -> Tenant:
        """Return the tenant of a webhook URL. Raises WebhookTokenUnknown, TenantBeingRemoved, Overloaded."""
        try:
            tenant = await self._registry.by_webhook_token(token)
        except DatabaseUnavailable as error:
            # Its reason can name hosts and roles, and the sender may be anybody.
            raise Overloaded(reason="the database is unavailable") from error
        if tenant is None:
            await self._gate.enter()
            raise WebhookTokenUnknown
        if tenant.status == "removing":
            raise TenantBeingRemoved
        return tenant

    async def receive(self, tenant: Tenant, body: bytes, signature: str | None) -> Recorded:
        """Record one delivery.

        Raises TenantUnconfigured, SecretKeyUnusable, SignatureInvalid, SignaturesLimited, RateLimited, EventMalformed,
        Overloaded.
        """
        received_at = self._clock()
        payload = signed_text(body)
        signed_at = await self._verify(tenant, payload, signature, received_at)
        self._rate_limit.admit(tenant, size=len(body))
        envelope = await self._envelope_of(body)
        disposition = envelope.disposition(tenant.mode)
        recorded = await self._recorder.record(
            Delivery(
                tenant=tenant,
                envelope=envelope,
                disposition=disposition,
                payload=payload,
                received_at=received_at,
                signed_at=signed_at,
            )
        )
        if disposition == "ignored":
            self.activity.ignored(tenant)
        return recorded

    async def _verify(self, tenant: Tenant, payload: str | bytes, signature: str | None, received_at: datetime) -> datetime:
        # Every delivery is verified, so that a flood of forged ones takes nothing from Stripe's.
        try:
            return verify(payload, signature, tenant.secrets, as_of=received_at)
        except (SignatureInvalid, TenantUnconfigured) as error:
            if isinstance(error, SignatureInvalid):
                await self._count_forged(tenant)
            if tenant.unreadable_secrets:
                raise SecretKeyUnusable(reason=UNREADABLE) from error
            raise

    async def _count_forged(self, tenant: Tenant) -> None:
        await self._gate.enter()
        try:
            self._signature_limit.admit(tenant)
        except SignaturesLimited:
            await self._signature_limit.hold_back()
            raise

    async def _envelope_of(self, body: bytes) -> Envelope:
        if len(body) <= READ_INLINE:
            return read_envelope(body)
        try:
            return decode_envelope(body)
        except MALFORMED as error:
            # One scan at a time: each thread that computes delays the event loop by a switch interval per step.
            async with self._scanning:
                return await asyncio.to_thread(scan_envelope, body, error)
