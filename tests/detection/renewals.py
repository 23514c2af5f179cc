"""Subscriptions as projection writes them, what they sell, and lines of their invoices. Times are minutes after NOON, unless said."""

from __future__ import annotations

from typing import Any

from billingwatch.billing.rows import Subscription

from .history import DAY, at


def seconds(minutes: float) -> int:
    return int(at(minutes).timestamp())


def item(start: float, end: float, amount: int | None = 1000, *, item_id: str = "si_1", **fields: Any) -> dict[str, Any]:
    """Unless told otherwise: what costs 10.00 a month, in its period from `start` to `end`."""
    return {
        "item_id": item_id,
        "price_id": "price_1",
        "unit_amount": amount,
        "quantity": 1,
        "interval": "month",
        "interval_count": 1,
        "usage_type": "licensed",
        "period_start": seconds(start),
        "period_end": seconds(end),
        "amount": amount,
        **fields,
    }


def subscription(
    key: str, told: float, *items: dict[str, Any], made: float | None = None, account: str | None = None, **fields: Any
) -> Subscription:
    """Unless told otherwise: an active one of US dollars, as an event at `told` tells of it. The later it is told, the newer."""
    made = told if made is None else made
    defaults: dict[str, Any] = {
        "customer_id": f"cus_{key}",
        "status": "active",
        "collection_method": "charge_automatically",
        "currency": "usd",
        "items": list(items),
        "mrr": None,
        "period_start_at": None,
        "period_end_at": None,
        "billing_cycle_anchor_at": at(made),
        "trial_end_at": None,
        "cancel_at_period_end": False,
        "cancel_at": None,
        "canceled_at": None,
        "ended_at": None,
        "collection_paused": False,
        "discounted": False,
        "default_payment_method_id": None,
        "created_at": at(made),
    }
    stage = 2 if fields.get("status") == "canceled" else 1
    return Subscription(
        subscription_id=f"sub_{key}",
        account=account,
        updated_at=at(told),
        event_id=f"evt_sub_{key}_{seconds(told)}",
        version=f"{stage}{seconds(told):012d}",
        **{**defaults, **fields},
    )


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
