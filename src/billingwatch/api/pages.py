"""Pages of a listing: a cursor is the sort key of the last row shown, opaque to whoever sends it back."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime

import msgspec

from billingwatch.errors import InputInvalid

LIMIT_DEFAULT = 50
LIMIT_MAX = 500

INSTANT = {"format": "date-time"}  # schema of what read_instant reads; as `datetime`, a parameter would also accept numbers


def read_instant(name: str, text: str | None) -> datetime | None:
    """Read an instant like `2026-03-01T00:00:00Z`; without an offset it is UTC. Raises InputInvalid."""
    if text is None:
        return None
    try:
        return _in_utc(name, msgspec.convert(text, datetime))
    except msgspec.ValidationError as error:
        raise InputInvalid(reason=f"`{name}` is not an instant like `2026-03-01T00:00:00Z`") from error


def in_utc(name: str, value: datetime | None) -> datetime | None:
    """Return an instant in UTC. Raises InputInvalid outside the years 1 to 9999."""
    return None if value is None else _in_utc(name, value)


def _in_utc(name: str, value: datetime) -> datetime:
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError as error:
        raise InputInvalid(reason=f"`{name}` is out of range") from error


def encode_cursor(at: datetime, row_id: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((at, row_id))).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> tuple[datetime, str] | None:
    """Read what encode_cursor made. Raises InputInvalid for anything else."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        at, row_id = msgspec.json.decode(raw, type=tuple[datetime, str])
    except (binascii.Error, ValueError, RecursionError, msgspec.DecodeError) as error:
        raise InputInvalid(reason="`cursor` is not one that this API gave out") from error
    if at.tzinfo is None or "\0" in row_id:
        raise InputInvalid(reason="`cursor` is not one that this API gave out")
    return _in_utc("cursor", at), row_id
