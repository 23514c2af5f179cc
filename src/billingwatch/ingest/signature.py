"""Verifying Stripe-Signature over every live secret of the tenant, with Stripe's own library where the body is UTF-8."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from stripe import SignatureVerificationError, WebhookSignature

from billingwatch.errors import SignatureInvalid, SignatureOutOfTime, TenantUnconfigured

TOLERANCE = 300  # seconds, into the past and into the future
HEADER_LIMIT = 4096  # characters; Stripe's are under 300, and each v1 costs a comparison

_SCHEME = WebhookSignature.EXPECTED_SCHEME  # v1
_TIME = re.compile(r"[0-9]{1,12}")


def verify(body: str | bytes, header: str | None, secrets: Sequence[str], *, as_of: datetime) -> datetime:
    """Return when Stripe signed `body`.

    Raises TenantUnconfigured without secrets, SignatureOutOfTime when one of them signed `body` more than TOLERANCE
    before or after `as_of`, and SignatureInvalid otherwise.
    """
    if not secrets:
        raise TenantUnconfigured
    signed = _signed_at(header)
    if not any(_matches(body, header, secret) for secret in secrets):
        raise SignatureInvalid
    age = as_of.timestamp() - signed
    if abs(age) > TOLERANCE:
        # A positive age is a delay on the way or a fast clock here, a negative one a slow clock here.
        direction = "before" if age > 0 else "after"
        raise SignatureOutOfTime(seconds=round(abs(age)), direction=direction, tolerance=TOLERANCE)
    return datetime.fromtimestamp(signed, UTC)


def _signed_at(header: str | None) -> int:
    # Comparing a v1 that is not ASCII is a TypeError in the library.
    if header is None or len(header) > HEADER_LIMIT or not header.isascii():
        raise SignatureInvalid
    # The library signs over the first `t` it finds and reads it leniently: one plain `t`, or an old signature could be shown with a fresh time.
    times = [item.removeprefix("t=") for item in header.split(",") if item.partition("=")[0] == "t"]
    if len(times) != 1 or not _TIME.fullmatch(times[0]):
        raise SignatureInvalid
    return int(times[0])


def _matches(body: str | bytes, header: str | None, secret: str) -> bool:
    if isinstance(body, bytes):
        return _matches_bytes(body, header or "", secret)
    try:
        # The library checks the age against its own clock; ours above is the stricter one, and handed in.
        verified: bool = WebhookSignature.verify_header(body, header, secret, tolerance=None)
    except (SignatureVerificationError, ValueError):
        return False
    return verified


def _matches_bytes(body: bytes, header: str, secret: str) -> bool:
    """Apply the rules of `WebhookSignature.verify_header`, which cannot read a body that is not UTF-8."""
    items = [item.split("=", 2) for item in header.split(",")]
    incomplete = ["t"] in items or [_SCHEME] in items
    if incomplete or not secret.strip(" \t\r\n\f\v"):
        return False
    expected = hmac.digest(secret.encode(), b"%d.%b" % (_signed_at(header), body), "sha256").hex()
    return any(hmac.compare_digest(expected, item[1]) for item in items if item[0] == _SCHEME)
