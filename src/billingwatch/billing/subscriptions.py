"""Subscriptions: what is sold, for which period, and what that is worth in a month."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import msgspec

from billingwatch.billing.events import Event, overlaid
from billingwatch.billing.rows import Json, Row, Subscription
from billingwatch.billing.shapes import (
    BIGINT_MAX,
    Fields,
    ProjectionError,
    currency,
    date_seconds,
    decimal,
    entries,
    flag,
    from_seconds,
    identity,
    instant,
    reference,
    required,
    section,
    text,
    whole,
)
from billingwatch.billing.versions import Stage, place, rank

STATES = ("incomplete", "trialing", "active", "past_due", "unpaid", "paused", "canceled", "incomplete_expired")
FINAL = frozenset({"canceled", "incomplete_expired"})
AMOUNTS = ("unit_amount", "unit_amount_decimal", "amount", "amount_decimal")
PER_MONTH = {"day": Fraction(365, 12), "week": Fraction(365, 84), "month": Fraction(1), "year": Fraction(1, 12)}


def read_subscription(event: Event, subscription: Fields) -> list[Row]:
    """Read a subscription with its items, and what it was before where the event tells: it may be the first that we hear of it."""
    now = _row(event, subscription)
    if not event.previous or event.is_deletion:
        return [now]
    try:
        before = _row(event.before(), overlaid(subscription, event.previous))
    except ProjectionError:
        return [now]
    # A state that Stripe never leaves cannot have been left.
    return [now] if before.status in FINAL or _says_the_same(before, now) else [before, now]


def _says_the_same(before: Subscription, now: Subscription) -> bool:
    return msgspec.structs.replace(before, updated_at=now.updated_at, version=now.version) == now


def _row(event: Event, subscription: Fields) -> Subscription:
    status = required(text(subscription, "status"), "status")
    items = list(entries(subscription, "items")) or _only_item(subscription)
    period_start, period_end = _earliest(subscription, items, "current_period_start"), _earliest(subscription, items, "current_period_end")
    canceled_at = date_seconds(subscription, "canceled_at")
    listed_all = not flag(section(subscription, "items"), "has_more")
    sold_in = currency(subscription) or next((code for item in items if (code := currency(_price(item)))), None)
    return Subscription(
        subscription_id=identity(subscription),
        customer_id=reference(subscription, "customer") or reference(subscription, "customer_account"),
        status=status,
        collection_method=text(subscription, "collection_method") or text(subscription, "billing"),  # `billing` until 2019-10-17
        currency=sold_in,
        items=[_item(item, sold_in) for item in items],
        mrr=_mrr(items, sold_in) if listed_all else None,
        period_start_at=None if period_start is None else from_seconds(period_start),
        period_end_at=None if period_end is None else from_seconds(period_end),
        billing_cycle_anchor_at=instant(subscription, "billing_cycle_anchor"),
        trial_end_at=instant(subscription, "trial_end"),
        cancel_at_period_end=bool(flag(subscription, "cancel_at_period_end")),
        cancel_at=instant(subscription, "cancel_at"),
        canceled_at=None if canceled_at is None else from_seconds(canceled_at),
        ended_at=instant(subscription, "ended_at"),
        collection_paused=subscription.get("pause_collection") is not None,
        discounted=any(_discounted(sold) for sold in (subscription, *items)),
        default_payment_method_id=reference(subscription, "default_payment_method") or reference(subscription, "default_source"),
        **event.stamp(
            instant(subscription, "created") or instant(subscription, "start"),  # `created` came later than subscriptions did
            stage=Stage.FINAL if event.is_deletion or status in FINAL else Stage.LIVE,
            rank=rank(
                first=event.is_creation,
                state=place(status, STATES),
                progress=max(period_start or 0, canceled_at or 0),
            ),
        ),
    )


def _only_item(subscription: Fields) -> list[Fields]:
    return [{"plan": subscription["plan"], "quantity": subscription.get("quantity")}] if section(subscription, "plan") else []


def _earliest(subscription: Fields, items: Iterable[Fields], name: str) -> int | None:
    on_items = [value for item in items if (value := date_seconds(item, name)) is not None]
    return min(on_items, default=date_seconds(subscription, name))


def _discounted(sold: Fields) -> bool:
    return bool(sold.get("discount") or sold.get("discounts"))


def _price(item: Fields) -> Fields:
    return section(item, "price") or section(item, "plan")


def _price_in(item: Fields, sold_in: str | None) -> Fields:
    """Return the item's price with the amounts of the currency that it is sold in; without amounts where the payload omits them."""
    price = _price(item)
    if currency(price) in {None, sold_in}:
        return price
    option = section(section(price, "currency_options"), sold_in or "")
    amounts = {name: option.get(name) for name in (*AMOUNTS, "tiers")}
    tiered = {"billing_scheme": "tiered"} if amounts["tiers"] else {}
    return {**price, **amounts, **tiered, "currency": sold_in}


def _recurring(price: Fields) -> Fields:
    return section(price, "recurring") or price  # a plan says it at its own top level


def _unit_amount(price: Fields) -> int | None:
    named = whole(price, "unit_amount")
    return whole(price, "amount") if named is None else named


def _item(item: Fields, sold_in: str | None) -> Json:
    price = _price_in(item, sold_in)
    recurring = _recurring(price)
    return {
        "item_id": reference(item, "id"),
        "price_id": reference(item, "price") or reference(item, "plan"),
        "unit_amount": _unit_amount(price),
        "quantity": whole(item, "quantity"),
        "interval": text(recurring, "interval"),
        "interval_count": whole(recurring, "interval_count"),
        "usage_type": text(recurring, "usage_type"),
        "period_start": date_seconds(item, "current_period_start"),
        "period_end": date_seconds(item, "current_period_end"),
        "amount": _amount(item, sold_in),
    }


def _amount(item: Fields, sold_in: str | None) -> int | None:
    """Return what an interval costs in minor units; None where tiers, usage, a trial of the item or an unknown price decide."""
    price = _price_in(item, sold_in)
    unit = _unit_amount_exactly(price)
    if unit is None or text(price, "billing_scheme") == "tiered" or text(_recurring(price), "usage_type") == "metered":
        return None
    if item.get("current_trial") is not None:
        return None
    quantity = whole(item, "quantity")
    amount = round(unit * _packages(price, 1 if quantity is None else quantity))
    return amount if abs(amount) <= BIGINT_MAX else None


def _mrr(items: Iterable[Fields], sold_in: str | None) -> int | None:
    monthly = [_monthly(item, sold_in) for item in items if text(_recurring(_price(item)), "usage_type") != "metered"]
    if not monthly or None in monthly:
        return None
    total = round(sum(filter(None, monthly), Fraction(0)))
    if abs(total) > BIGINT_MAX:
        raise ProjectionError(reason="the monthly amount is beyond what can be stored")
    return total


def _monthly(item: Fields, sold_in: str | None) -> Fraction | None:
    price = _price_in(item, sold_in)
    recurring = _recurring(price)
    per_month = PER_MONTH.get(text(recurring, "interval") or "")
    unit = _unit_amount_exactly(price)
    if per_month is None or unit is None or text(price, "billing_scheme") == "tiered":
        return None
    quantity, count = whole(item, "quantity"), whole(recurring, "interval_count")
    packages = _packages(price, 1 if quantity is None else quantity)
    return unit * packages * per_month / max(1 if count is None else count, 1)


def _unit_amount_exactly(price: Fields) -> Fraction | None:
    for name in ("unit_amount_decimal", "amount_decimal"):
        if (exact := decimal(price, name)) is not None:
            return exact
    rounded = _unit_amount(price)
    return None if rounded is None else Fraction(rounded)


def _packages(price: Fields, quantity: int) -> int:
    transform = section(price, "transform_quantity") or section(price, "transform_usage")  # the latter of a plan
    size = whole(transform, "divide_by")
    if not size or size < 0:
        return quantity
    return -(-quantity // size) if text(transform, "round") == "up" else quantity // size
