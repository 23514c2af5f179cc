"""Ways from an anomaly to what is behind it: pages of Stripe's dashboard, and SQL for an analyst's session. Made from its evidence alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec

from billingwatch.detection.store import Anomaly
from billingwatch.tenancy.tenants import Mode

DASHBOARD = "https://dashboard.stripe.com"
LINKS_LIMIT = 10  # per anomaly; its evidence names more objects
ROWS_LIMIT = 1000  # of a window without objects and events

# Noun of an evidence's object, singular → its table, the table's key, and the dashboard's word for it.
_NOUNS: dict[str, tuple[str, str, str | None]] = {
    "charge": ("charges", "charge_id", "payments"),
    "invoice": ("invoices", "invoice_id", "invoices"),
    "subscription": ("subscriptions", "subscription_id", "subscriptions"),
    "dispute": ("disputes", "dispute_id", "disputes"),
    "refund": ("refunds", "refund_id", None),
    "customer": ("customers", "customer_id", "customers"),
    "payment_method": ("payment_methods", "payment_method_id", None),
}
_ACCOUNT = re.compile(r" (acct_[A-Za-z0-9_]+)$")
_FRAUD_WARNING = "issfr_"  # lies in `disputes`, and has no page of its own

_SELECT = "SELECT '{table}' AS source, t.{key} AS id, t.{at} AS at, to_json(t) AS row FROM {table} AS t WHERE {condition}"


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """An object and its page in Stripe's dashboard."""

    object_id: str
    url: str


def links_of(anomaly: Anomaly, mode: Mode) -> list[Link]:
    """Pages of the dashboard, that of the main object first; of events where no object is named."""
    account = _ACCOUNT.search(anomaly.subject)
    base = "/".join([DASHBOARD, *([account[1]] if account else []), *(["test"] if mode == "test" else [])])
    named = [(page, key) for noun, keys in _objects(anomaly) for key in keys if (page := _page(noun, key)) is not None]
    # What the anomaly is about comes before what else it touches.
    named.sort(key=lambda each: each[1] != anomaly.subject.partition(" ")[0])
    found = named or [("events", event_id) for event_id in _event_ids(anomaly)]
    return [Link(object_id=key, url=f"{base}/{page}/{quote(key, safe='')}") for page, key in found[:LINKS_LIMIT]]


def statement_of(anomaly: Anomaly) -> str:
    """One statement that shows the rows behind an anomaly, in the tenant's schema as it is."""
    parts = [_select(_NOUNS[noun][0], _NOUNS[noun][1], "created_at", keys) for noun, keys in _objects(anomaly)]
    if event_ids := _event_ids(anomaly):
        parts.append(_select("events", "event_id", "occurred_at", event_ids))
    if not parts:
        window = anomaly.evidence.get("window", {})
        since, until = window.get("since") or anomaly.opened_at.isoformat(), window.get("until") or anomaly.last_seen_at.isoformat()
        condition = f"t.received_at BETWEEN {_literal(since)} AND {_literal(until)}"
        parts.append(_SELECT.format(table="events", key="event_id", at="received_at", condition=condition))
    limit = "" if len(parts) > 1 or " IN " in parts[0] else f"\nLIMIT {ROWS_LIMIT}"
    return "\nUNION ALL\n".join(parts) + f"\nORDER BY at, source, id{limit};"


def _objects(anomaly: Anomaly) -> Iterator[tuple[str, list[str]]]:
    """Nouns that tables know, and the ids of each."""
    objects: dict[str, Any] = anomaly.evidence.get("objects", {})
    for name, value in objects.items():
        noun = name if name in _NOUNS else name.removesuffix("s")
        keys = [key for key in (value if isinstance(value, list) else [value]) if isinstance(key, str) and key]
        if noun in _NOUNS and keys:
            yield noun, keys


def _event_ids(anomaly: Anomaly) -> list[str]:
    return [event_id for event_id in anomaly.evidence.get("event_ids", []) if isinstance(event_id, str)]


def _page(noun: str, key: str) -> str | None:
    return None if key.startswith(_FRAUD_WARNING) else _NOUNS[noun][2]


def _select(table: str, key: str, at: str, keys: list[str]) -> str:
    return _SELECT.format(table=table, key=key, at=at, condition=f"t.{key} IN ({', '.join(_literal(each) for each in keys)})")


def _literal(text: str) -> str:
    """An id comes from whoever signs events: it is data. A backslash means nothing inside, whatever the session's settings."""
    quoted = text.replace("'", "''")
    return f" E'{quoted.replace(chr(92), chr(92) * 2)}'" if "\\" in quoted else f"'{quoted}'"
