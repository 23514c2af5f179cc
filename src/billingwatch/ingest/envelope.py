"""The envelope of an event: the few fields that recording needs, read without building the rest.

A body that msgspec refuses is scanned for the same fields, so that every signed event with an id can be recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from billingwatch.billing.shapes import account_in_context
from billingwatch.errors import EventMalformed
from billingwatch.ingest.scan import Reader, read_members, reader_of

Disposition = Literal["process", "ignored", "needs_fetch"]

# Printable ASCII: Stripe's ids and types are, and Postgres could not store a NUL.
_Word = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[!-~]+\Z")]

THIN = "v2.core.event"
UNKNOWN = "unknown"  # type of an event whose own cannot be read
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
    """True for an event without one: a live tenant then evaluates it, and a test tenant mixes no live event into its data."""
    account: str | None
    object_id: str | None
    occurred_at: datetime | None
    """None when the body has no usable `created`."""
    thin: bool

    def disposition(self, mode: Literal["live", "test"]) -> Disposition:
        """What becomes of the event at a tenant of that mode."""
        if self.livemode != (mode == "live"):
            return "ignored"
        return "needs_fetch" if self.thin else "process"


_decoder = msgspec.json.Decoder(_Body)

MALFORMED = (msgspec.DecodeError, RecursionError, ValueError, OverflowError)
"""Errors of a body that is not JSON, or whose fields are not as Stripe documents them."""


def read_envelope(body: bytes) -> Envelope:
    """Return the envelope of a snapshot or thin event, with defaults for fields that cannot be read.

    Raises EventMalformed: the body has no `id` of 1 to 255 printable ASCII characters at its top level.
    """
    try:
        return decode_envelope(body)
    except MALFORMED as error:
        return scan_envelope(body, error)


def decode_envelope(body: bytes) -> Envelope:
    """Return the envelope of a well-formed event. Raises one of MALFORMED."""
    event = _decoder.decode(body)
    occurred_at = _instant(event.created)
    thin = event.object_ == THIN
    inside = event.related_object if thin else event.data.object_ if event.data else None
    return Envelope(
        event_id=event.id,
        type=event.type,
        api_version=event.api_version,
        livemode=event.livemode,
        account=event.account or _plain_text(event.user_id) or _account_in(event.context),
        object_id=_plain_text(inside.id if inside else None),
        occurred_at=occurred_at,
        thin=thin,
    )


def scan_envelope(body: bytes, error: Exception) -> Envelope:
    """Return what can be read of an event that `decode_envelope` refused with `error`. Raises EventMalformed."""
    found: dict[str, Any] = read_members(body, _READERS)
    if "id" not in found:
        raise EventMalformed(reason=f"it has no usable `id` ({error})") from error
    thin = found.get("object") == THIN
    return Envelope(
        event_id=found["id"],
        type=found.get("type", UNKNOWN),
        api_version=found.get("api_version"),
        livemode=found.get("livemode", True),
        account=found.get("account") or _plain_text(found.get("user_id")) or _account_in(found.get("context")),
        object_id=_plain_text(found.get("related_object" if thin else "data")),
        occurred_at=found.get("created"),
        thin=thin,
    )


_created = reader_of(int | float | datetime)
_text = reader_of(str)
_word = reader_of(_Word)


def _read_created(text: bytes) -> datetime | None:
    created: Any = _created(text)
    try:
        return None if created is None else _instant(created)
    except (ValueError, OverflowError):
        return None


def _read_id(text: bytes) -> object:
    return read_members(text, {"id": _text}).get("id")


def _read_object_id(text: bytes) -> object:
    return read_members(text, {"object": _read_id}).get("object")


_READERS: Mapping[str, Reader] = {
    "id": _word,
    "type": _word,
    "created": _read_created,
    "object": _text,
    "livemode": reader_of(bool),
    "api_version": _word,
    "account": _word,
    "user_id": _text,
    "context": _text,
    "data": _read_object_id,
    "related_object": _read_id,
}


def _account_in(context: object) -> str | None:
    return _plain_text(account_in_context(context))


def _instant(created: float | datetime) -> datetime:
    if isinstance(created, datetime):
        return created.astimezone(UTC) if created.tzinfo else created.replace(tzinfo=UTC)
    return datetime.fromtimestamp(min(max(created, 0), _LATEST), UTC)


def _plain_text(value: object) -> str | None:
    return value[:255].replace("\0", "") if isinstance(value, str) and value else None
