from __future__ import annotations

from datetime import UTC, datetime

import pytest

from billingwatch.billing.readers import read_event
from billingwatch.billing.rows import Subscription

from .payloads import DAY, NOW, Json, event, item, listed, price, subscription


def read(inside: object, kind: str = "customer.subscription.updated", **envelope: object) -> Subscription:
    (row,) = read_event(event(kind, inside, **envelope))
    assert isinstance(row, Subscription)
    return row


def test_a_subscription_is_read_whole() -> None:
    row = read(subscription(trial_end=NOW + DAY, cancel_at_period_end=True, canceled_at=NOW))

    assert (row.subscription_id, row.customer_id, row.status, row.currency) == ("sub_1", "cus_1", "active", "usd")
    assert (row.collection_method, row.default_payment_method_id) == ("charge_automatically", "pm_1")
    assert (row.period_start_at, row.period_end_at) == (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
    assert (row.trial_end_at, row.canceled_at, row.cancel_at, row.ended_at) == (
        datetime(2026, 1, 2, tzinfo=UTC),
        datetime(2026, 1, 1, tzinfo=UTC),
        None,
        None,
    )
    assert (row.cancel_at_period_end, row.collection_paused, row.discounted, row.mrr) == (True, False, False, 2000)
    assert row.items == [
        {
            "item_id": "si_1",
            "price_id": "price_1",
            "unit_amount": 2000,
            "quantity": 1,
            "interval": "month",
            "interval_count": 1,
            "usage_type": "licensed",
            "period_start": NOW,
            "period_end": NOW + 31 * DAY,
            "amount": 2000,
        }
    ]


@pytest.mark.parametrize(
    ("sold", "amount"),
    [
        (item(quantity=3), 6000),
        (item(quantity=None), 2000),
        (item(quantity=0), 0),
        (item(quantity=3, price=price(None, unit_amount_decimal="0.5")), 2),
        (item(quantity=10, price=price(100, interval="year", interval_count=2)), 1000),
        (item(quantity=11, price=price(100, transform_quantity={"divide_by": 5, "round": "up"})), 300),
        (item(quantity=11, price=price(100, transform_quantity={"divide_by": 5, "round": "down"})), 200),
        ({"id": "si_1", "plan": {"id": "gold", "amount": 900, "interval": "month", "currency": "usd"}, "quantity": 2}, 1800),
        (item(price=price(None, billing_scheme="tiered")), None),
        (item(price=price(100, recurring={"interval": "month", "usage_type": "metered"})), None),
        (item(price=price(None)), None),
        (item(price=price(100, currency="eur")), None),
        (item(current_trial={"trial_end": NOW + DAY}), None),
    ],
)
def test_an_item_says_what_an_interval_costs_where_that_is_known(sold: Json, amount: int | None) -> None:
    assert read(subscription("sub_1", sold)).items[0]["amount"] == amount


def test_the_period_is_the_earliest_of_the_items() -> None:
    monthly = item("si_1", current_period_end=NOW + 31 * DAY)
    yearly = item("si_2", current_period_start=NOW - 90 * DAY, current_period_end=NOW + 275 * DAY, price=price(interval="year"))

    row = read(subscription("sub_1", yearly, monthly))

    assert (row.period_start_at, row.period_end_at) == (datetime(2025, 10, 3, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))


def test_before_basil_the_subscription_has_the_period() -> None:
    bare = {key: value for key, value in item().items() if not key.startswith("current_period")}

    row = read(subscription("sub_1", bare, current_period_start=NOW, current_period_end=NOW + DAY))

    assert (row.period_start_at, row.period_end_at) == (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))


def test_where_both_have_a_period_the_items_count() -> None:
    row = read(subscription(current_period_start=NOW - 5, current_period_end=NOW - 1))

    assert row.period_end_at == datetime(2026, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("items", "mrr"),
    [
        ([item(quantity=3)], 6000),
        ([item(quantity=None)], 2000),
        ([item(price=price(12000, "year"))], 1000),
        ([item(price=price(3000, "month", 3))], 1000),
        ([item(price=price(84, "week"))], 365),
        ([item(price=price(12, "day"))], 365),
        ([item(price=price(1200, "year", 2)), item("si_2")], 2050),
        ([item(price=price(0))], 0),
        ([item(price=price(1000, "century"))], None),
        # Fractions of a cent are written as text, and the whole amount is null then.
        ([item(quantity=1000, price=price(None, unit_amount_decimal="0.5"))], 500),
        ([item(quantity=3, price=price(1, "year", unit_amount_decimal="0.4"))], 0),
        # Sold in packages.
        ([item(quantity=11, price=price(100, transform_quantity={"divide_by": 5, "round": "up"}))], 300),
        ([item(quantity=11, price=price(100, transform_quantity={"divide_by": 5, "round": "down"}))], 200),
        # Metered prices tell only afterwards; tiers are not part of the event.
        ([item(), item("si_2", price=price(7, recurring={"interval": "month", "interval_count": 1, "usage_type": "metered"}))], 2000),
        ([item(price=price(7, recurring={"interval": "month", "interval_count": 1, "usage_type": "metered"}))], None),
        ([item(), item("si_2", price=price(None, billing_scheme="tiered"))], None),
    ],
)
def test_monthly_revenue_is_what_the_items_tell(items: list[Json], mrr: int | None) -> None:
    assert read(subscription("sub_1", *items)).mrr == mrr


def test_monthly_revenue_is_unknown_when_items_are_missing_from_the_event() -> None:
    row = read(subscription(items=listed(*(item(f"si_{n}") for n in range(10)), has_more=True)))

    assert (row.mrr, len(row.items)) == (None, 10)


def test_items_with_plans_are_read_like_items_with_prices() -> None:
    plan = {
        "id": "plan_1",
        "object": "plan",
        "amount": 12000,
        "interval": "year",
        "interval_count": 1,
        "usage_type": "licensed",
        "currency": "EUR",
    }
    old_item = {"id": "si_1", "object": "subscription_item", "plan": plan, "quantity": 1}

    row = read(subscription("sub_1", old_item, currency=None))

    assert (row.mrr, row.currency) == (1000, "eur")
    assert (row.items[0]["price_id"], row.items[0]["unit_amount"], row.items[0]["interval"]) == ("plan_1", 12000, "year")


def test_a_subscription_from_before_items_has_its_plan_as_the_only_one() -> None:
    plan = {"id": "gold", "object": "plan", "amount": 500, "currency": "usd", "interval": "month", "interval_count": 1}
    ancient = {"id": "sub_1", "object": "subscription", "plan": plan, "quantity": 2, "status": "active", "customer": "cus_1", "start": NOW}

    row = read(ancient)

    assert (row.mrr, row.currency, row.created_at) == (1000, "usd", datetime(2026, 1, 1, tzinfo=UTC))
    assert (row.items[0]["item_id"], row.items[0]["price_id"], row.items[0]["quantity"]) == (None, "gold", 2)


@pytest.mark.parametrize(
    ("fields", "discounted"),
    [
        ({"discount": {"id": "di_1", "coupon": {"id": "co_1"}}, "discounts": []}, True),
        ({"discount": None, "discounts": ["di_1"]}, True),
        ({"discounts": [{"id": "di_1", "source": {"type": "coupon", "coupon": "co_1"}}]}, True),
        ({"items": listed(item(discounts=["di_1"]))}, True),
        ({"discount": None, "discounts": []}, False),
    ],
)
def test_a_discount_is_seen_in_every_shape(fields: Json, discounted: bool) -> None:
    assert read(subscription(**fields)).discounted is discounted


def test_paused_collection_is_seen_though_the_status_stays_active() -> None:
    row = read(subscription(pause_collection={"behavior": "void", "resumes_at": None}))

    assert (row.status, row.collection_paused) == ("active", True)


@pytest.mark.parametrize(
    ("fields", "method"),
    [
        ({"default_payment_method": {"id": "pm_2"}}, "pm_2"),
        ({"default_payment_method": None, "default_source": "card_1"}, "card_1"),
        ({"default_payment_method": None}, None),
    ],
)
def test_the_default_payment_method_may_be_a_source(fields: Json, method: str | None) -> None:
    assert read(subscription(**fields)).default_payment_method_id == method


def test_an_update_that_waits_for_its_payment_has_changed_nothing_yet() -> None:
    pending = {"subscription_items": [item(price=price(500))], "billing_cycle_anchor": None, "expires_at": NOW + DAY, "trial_end": None}

    assert read(subscription(pending_update=pending)) == read(subscription())
