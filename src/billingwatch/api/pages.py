"""Pages of a listing: a cursor is the sort key of the last row shown, opaque to whoever sends it back."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime

import msgspec

from billingwatch.errors import InputInvalid

LIMIT_DEFAULT = 50
LIMIT_MAX = 500


def in_utc(name: str, value: datetime | None) -> datetime | None:
    """A time as a request gives it; without an offset it is UTC. InputInvalid for one that no calendar holds."""
    if value is None:
        return None
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError as error:
        raise InputInvalid(reason=f"`{name}` is out of range") from error


def encode_cursor(at: datetime, row_id: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((at, row_id))).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> tuple[datetime, str] | None:
    """Read what encode_cursor made; InputInvalid for anything else."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        at, row_id = msgspec.json.decode(raw, type=tuple[datetime, str])
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise InputInvalid(reason="`cursor` is not one that this API gave out") from error
    if at.tzinfo is None or "\0" in row_id:
        raise InputInvalid(reason="`cursor` is not one that this API gave out")
    return at, row_id
