"""Signs as Stripe does, with Stripe's own library."""

from __future__ import annotations

from stripe import WebhookSignature


def sign(payload: bytes, secret: str, at: int) -> str:
    """Give the Stripe-Signature header of a body posted at `at` (Unix seconds)."""
    header: str = WebhookSignature.generate_signature_header(payload.decode(), secret, at)
    return header
