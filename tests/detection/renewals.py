"""Subscriptions as projection writes them, what they sell, and lines of their invoices. Times are minutes after NOON, unless said."""

from __future__ import annotations

from typing import Any

from billingwatch.billing.rows import Subscription

from . import history
from .history import DAY, at


def seconds(minutes: float) -> int:
    return int(at(minutes).timestamp())


def item(start: float, end: float, amount: int | None = 1000, *, item_id: str = "si_1", **fields: Any) -> dict[str, Any]:
    """Unless told otherwise: what costs 10.00 a month, in its period from `start` to `end`."""
    period = {"period_start": seconds(start), "period_end": seconds(end)}
    return history.item(amount, **{"item_id": item_id, "price_id": "price_1", "amount": amount, **period, **fields})


def subscription(key: str, told: float, *items: dict[str, Any], made: float | None = None, **fields: Any) -> Subscription:
    """Unless told otherwise: an active one of US dollars, as an event at `told` tells of it. The later it is told, the newer."""
    made = told if made is None else made
    unknown = {"mrr": None, "period_start_at": None, "period_end_at": None}
    return history.subscription(key, made, snapshot=seconds(told), updated=told, **{**unknown, "items": list(items), **fields})


def line(start: float, end: float, amount: int = 1000, *, item_id: str | None = "si_1", **fields: Any) -> dict[str, Any]:
    """Unless told otherwise: what bills an item of 10.00 for the period from `start` to `end`."""
    return {
        "price_id": "price_1",
        "amount": amount,
        "quantity": 1,
        "proration": False,
        "subscription_item_id": item_id,
        "period_start": seconds(start),
        "period_end": seconds(end),
        "discounted": False,
        "listed_all": True,
        **fields,
    }


def renewed(day: float, days: float = 31, **fields: Any) -> dict[str, Any]:
    """The fields of an invoice made on a day after NOON that bills the `days` that follow."""
    start = day * DAY
    return {"lines": [line(start, start + days * DAY, fields.get("total", 1000))], **fields}
