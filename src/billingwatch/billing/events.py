"""The envelope of a snapshot event, as far as the rows read from it need it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TypedDict

import msgspec

from billingwatch.billing.shapes import (
    Fields,
    ProjectionError,
    account_in_context,
    from_seconds,
    reference,
    required,
    seconds,
    section,
    text,
)
from billingwatch.billing.versions import Stage, version


class Stamp(TypedDict):
    """The columns that every projected row has."""

    account: str | None
    created_at: datetime
    updated_at: datetime
    event_id: str
    version: str


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What Stripe said about an object, and when."""

    event_id: str
    type: str
    api_version: str | None
    account: str | None
    occurred_at: int
    """Unix seconds."""
    occurred: datetime
    """The same as an instant."""
    object: Fields
    previous: Fields
    """What the event says the object was before, where that differs."""

    def shaped_before(self, version: str) -> bool:
        """Return whether an API version older than `version` (YYYY-MM-DD) shaped the payload; False when the event names none."""
        return self.api_version is not None and self.api_version < version

    @property
    def is_creation(self) -> bool:
        """The event tells of the object's first state."""
        return self.type.endswith(".created")

    @property
    def is_deletion(self) -> bool:
        """The event tells of the object's end."""
        return self.type.endswith(".deleted")

    def before(self) -> Event:
        """The same, a second earlier: it dates what the object was until then."""
        return msgspec.structs.replace(self, occurred_at=self.occurred_at - 1, occurred=from_seconds(self.occurred_at - 1))

    def stamp(self, created_at: datetime | None, *, stage: Stage, rank: int) -> Stamp:
        """Date a snapshot of this event; an object that does not say when it was created was created by now."""
        return {
            "account": self.account,
            "created_at": self.occurred if created_at is None else created_at,
            "updated_at": self.occurred,
            "event_id": self.event_id,
            "version": version(stage=stage, occurred_at=self.occurred_at, rank=rank, event_id=self.event_id),
        }


def decode_payload(payload: str) -> object:
    """Decode the payload of a recorded event, or raise ProjectionError."""
    try:
        event: object = msgspec.json.decode(payload)
    except RecursionError as error:
        raise ProjectionError(reason="it is nested too deep") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise ProjectionError(reason=str(error)) from error
    if event is None:
        raise ProjectionError(reason="PostgreSQL does not accept its body as JSON; the column `body` of `events` holds it as bytes")
    return event


def parse_event(event: object) -> Event:
    """Read the envelope of a snapshot event, or raise ProjectionError."""
    if not isinstance(event, dict):
        raise ProjectionError(reason="it is not an object")
    data = event.get("data")
    inside = data.get("object") if isinstance(data, dict) else None
    if not isinstance(inside, dict):
        raise ProjectionError(reason="it carries no object")
    occurred_at = required(seconds(event, "created"), "created")
    return Event(
        event_id=required(reference(event, "id"), "id"),
        type=required(text(event, "type"), "type"),
        api_version=text(event, "api_version"),
        account=_account(event),
        occurred_at=occurred_at,
        occurred=from_seconds(occurred_at),
        object=inside,
        previous=section(data, "previous_attributes") if isinstance(data, dict) else {},
    )


def _account(event: Mapping[str, object]) -> str | None:
    """Read the connected account: `account`, until 2017-05-25 `user_id`; for an organization the end of `context`."""
    in_context = {"account": account_in_context(event.get("context"))}
    return reference(event, "account") or reference(event, "user_id") or reference(in_context, "account")


def overlaid(now: Fields, previous: Fields) -> Fields:
    """What an object was: nested objects field by field, lists whole, as Stripe writes `previous_attributes`."""
    return {**now, **{key: _overlaid(now.get(key), value) for key, value in previous.items()}}


def _overlaid(now: object, previous: object) -> object:
    return overlaid(now, previous) if isinstance(now, dict) and isinstance(previous, dict) else previous
