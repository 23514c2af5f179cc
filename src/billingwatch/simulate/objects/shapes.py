"""What all objects share: API versions, the envelope of an event, ids."""

from __future__ import annotations

from typing import Any, Literal, Protocol

Shape = Literal["legacy", "current"]
StripeObject = dict[str, Any]

# Either side of 2025-03-31.basil, which moved invoices off charges and periods off subscriptions.
API_VERSIONS: dict[Shape, str] = {"legacy": "2024-06-20", "current": "2026-10-28.endive"}

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PAIRS = tuple(high + low for high in ALPHABET for low in ALPHABET)
TAILS = 62**8  # how many different tails there are


class Facts(Protocol):
    """The facts of one Stripe object."""

    @property
    def id(self) -> str: ...

    def render(self, shape: Shape, *, livemode: bool) -> StripeObject:
        """Give the object as Stripe would send it."""


def tail(number: int) -> str:
    """Spell a number below TAILS in the eight characters that end an id."""
    high, low = divmod(number, 62**4)
    return PAIRS[high // 3844] + PAIRS[high % 3844] + PAIRS[low // 3844] + PAIRS[low % 3844]


def second(created: int) -> str:
    """Spell a time in the characters that begin an id, so that ids grow with time as Stripe's do."""
    return tail(created)[3:]


def event(
    event_id: str,
    event_type: str,
    rendered: StripeObject,
    *,
    created: int,
    shape: Shape = "current",
    livemode: bool = True,
    account: str | None = None,
    previous: StripeObject | None = None,
    request: tuple[str, str] | None = None,
) -> StripeObject:
    """Wrap a rendered object as the webhook does; `request` is the id and idempotency key of the API call behind it."""
    request_id, idempotency_key = request or (None, None)
    return {
        "id": event_id,
        "object": "event",
        **({"account": account} if account else {}),
        "api_version": API_VERSIONS[shape],
        "created": created,
        "data": {"object": rendered, **({"previous_attributes": previous} if previous is not None else {})},
        "livemode": livemode,
        "pending_webhooks": 1,
        "request": {"id": request_id, "idempotency_key": idempotency_key},
        "type": event_type,
    }
