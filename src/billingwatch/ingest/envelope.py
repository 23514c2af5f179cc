"""The envelope of an event: the few fields that recording needs, read without building the rest."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from billingwatch.billing.shapes import account_in_context
from billingwatch.errors import EventMalformed

Disposition = Literal["process", "ignored", "needs_fetch"]

# Printable ASCII: Stripe's ids and types are, and Postgres could not store a NUL.
_Word = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[!-~]+\Z")]

THIN = "v2.core.event"
_LATEST = 253_370_764_800  # the year 9999: test clocks run ahead, a timestamptz ends


class _Object(msgspec.Struct, frozen=True):
    id: object = None


class _Data(msgspec.Struct, frozen=True):
    object_: _Object | None = msgspec.field(default=None, name="object")


class _RelatedObject(msgspec.Struct, frozen=True):
    id: object = None


class _Body(msgspec.Struct, frozen=True):
    id: _Word
    type: _Word
    created: int | float | datetime
    object_: str | None = msgspec.field(default=None, name="object")
    livemode: bool = True
    api_version: _Word | None = None
    account: _Word | None = None
    user_id: object = None
    context: object = None
    data: _Data | None = None
    related_object: _RelatedObject | None = None


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an event before anyone looks inside."""

    event_id: str
    type: str
    api_version: str | None
    livemode: bool
    account: str | None
    object_id: str | None
    occurred_at: datetime
    thin: bool

    def disposition(self, mode: Literal["live", "test"]) -> Disposition:
        """What becomes of the event at a tenant of that mode."""
        if self.livemode != (mode == "live"):
            return "ignored"
        return "needs_fetch" if self.thin else "process"


_decoder = msgspec.json.Decoder(_Body)


def read_envelope(body: bytes) -> Envelope:
    """Decode the envelope of a snapshot or thin event; raise EventMalformed."""
    try:
        event = _decoder.decode(body)
        occurred_at = _instant(event.created)
    except (msgspec.DecodeError, RecursionError, ValueError, OverflowError) as error:
        raise EventMalformed(reason=str(error)) from error
    thin = event.object_ == THIN
    account = event.account or _plain_text(event.user_id) or _plain_text(account_in_context(event.context))
    inside = event.related_object if thin else event.data.object_ if event.data else None
    return Envelope(
        event_id=event.id,
        type=event.type,
        api_version=event.api_version,
        livemode=event.livemode,
        account=account,
        object_id=_plain_text(inside.id if inside else None),
        occurred_at=occurred_at,
        thin=thin,
    )


def _instant(created: float | datetime) -> datetime:
    if isinstance(created, datetime):
        return created.astimezone(UTC) if created.tzinfo else created.replace(tzinfo=UTC)
    return datetime.fromtimestamp(min(max(created, 0), _LATEST), UTC)


def _plain_text(value: object) -> str | None:
    return value[:255].replace("\0", "") if isinstance(value, str) and value else None
