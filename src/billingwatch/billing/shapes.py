"""Reading a field of a Stripe object, whatever the API version made of it. What cannot be read or stored is a ProjectionError."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from types import MappingProxyType
from typing import TypeVar

from billingwatch.errors import BillingWatchError

Value = TypeVar("Value")
Fields = Mapping[str, object]
"""A JSON object as Stripe sent it."""

NOTHING: Fields = MappingProxyType({})
SMALLINT_MAX = 2**15 - 1
INTEGER_MAX = 2**31 - 1
BIGINT_MAX = 2**63 - 1
INSTANT_MAX = 253_402_300_799  # unix seconds; the last of the year 9999, where datetime ends
REFERENCE_MAX = 255  # characters; Stripe promises that ids are not longer, and our indexes hold them
DECIMAL = re.compile(r"-?\d{1,24}(\.\d{1,24})?", re.ASCII)


class ProjectionError(BillingWatchError):
    """the event cannot be projected: {reason}"""

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason=reason)


def text(fields: Fields, name: str) -> str | None:
    """Read a text that Postgres can hold."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ProjectionError(reason=f"{name} is not text")
    return _storable(value, name)


def reference(fields: Fields, name: str) -> str | None:
    """Read the id of another object: given alone, or as that object expanded."""
    value = fields.get(name)
    if isinstance(value, dict):
        value = value.get("id")
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ProjectionError(reason=f"{name} is no reference")
    if len(value) > REFERENCE_MAX:
        raise ProjectionError(reason=f"{name} is longer than {REFERENCE_MAX} characters")
    return _storable(value, name)


def identity(fields: Fields) -> str:
    """Read the object's own id."""
    return required(reference(fields, "id"), "id")


def currency(fields: Fields, name: str = "currency") -> str | None:
    """Read an ISO 4217 code in lower case."""
    value = text(fields, name)
    return None if value is None else value.lower()


def whole(fields: Fields, name: str, limit: int = BIGINT_MAX) -> int | None:
    """Read an integer between -limit and limit; amounts are in minor units."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise ProjectionError(reason=f"{name} is not an integer")
    if not -limit <= value <= limit:
        raise ProjectionError(reason=f"{name} is beyond {limit}")
    return value


def decimal(fields: Fields, name: str) -> Fraction | None:
    """Read a decimal that Stripe writes as text, exactly."""
    value = text(fields, name)
    if value is None:
        return None
    if not DECIMAL.fullmatch(value):
        raise ProjectionError(reason=f"{name} is not a decimal")
    return Fraction(value)


def flag(fields: Fields, name: str) -> bool | None:
    """Read a boolean."""
    value = fields.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise ProjectionError(reason=f"{name} is not a boolean")


def seconds(fields: Fields, name: str) -> int | None:
    """Read a time in unix seconds."""
    return whole(fields, name, INSTANT_MAX)


def date_seconds(fields: Fields, name: str) -> int | None:
    """Read a date in unix seconds; Stripe writes 0 for "no date" (`due_by` of a dispute that nobody may answer)."""
    return seconds(fields, name) or None


def instant(fields: Fields, name: str) -> datetime | None:
    """Read a date in unix seconds as an aware datetime; 0 is no date."""
    value = date_seconds(fields, name)
    return None if value is None else from_seconds(value)


def from_seconds(value: int) -> datetime:
    """Turn unix seconds into an aware datetime."""
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ProjectionError(reason=f"{value} is no time") from error


def section(fields: Fields, name: str) -> Fields:
    """Read a nested object; nothing when it is absent, null or only an id."""
    value = fields.get(name)
    return value if isinstance(value, dict) else NOTHING


def entries(fields: Fields, name: str) -> Iterator[Fields]:
    """Read the expanded objects of a list: Stripe's list object, or a plain array as in its early years."""
    value = fields.get(name)
    if isinstance(value, dict):
        value = value.get("data")
    if isinstance(value, list):
        yield from (entry for entry in value if isinstance(entry, dict))


def account_in_context(context: object) -> str | None:
    """Return the account that an event's context names: `acct_…`, or the last part of `org_…/acct_…`."""
    last = context.rpartition("/")[2] if isinstance(context, str) else ""
    return last if last.startswith("acct_") else None


def required(value: Value | None, name: str) -> Value:
    """Insist on a field that a row cannot do without."""
    if value is None:
        raise ProjectionError(reason=f"{name} is missing")
    return value


def _storable(value: str, name: str) -> str:
    if "\0" in value:
        raise ProjectionError(reason=f"{name} contains a NUL character")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ProjectionError(reason=f"{name} contains half a character") from error
    return value
