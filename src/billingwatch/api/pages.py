"""Pages of a listing: a cursor is the sort key of the last row shown, opaque to whoever sends it back."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime

import msgspec

from billingwatch.errors import InputInvalid

LIMIT_DEFAULT = 50
LIMIT_MAX = 500


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
