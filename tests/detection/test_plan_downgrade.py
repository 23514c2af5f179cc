from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from billingwatch.billing.rows import Subscription
from billingwatch.detection.detectors.plan_downgrade import PlanDowngrade
from billingwatch.detection.store import Anomaly

from .history import DAY, NOON, History, at, item, subscription


async def seen(history: History) -> Anomaly:
    (anomaly,) = await history.anomalies()
    return anomaly


def steps(key: str, *states: dict[str, Any], start: float = -60 * DAY, account: str | None = None) -> list[Subscription]:
    """States of one subscription, a day apart, the second at NOON."""
    return [
        subscription(key, start, snapshot=number + 1, updated=(number - 1) * DAY, account=account, **state)
        for number, state in enumerate(states)
    ]


def seats(quantity: int, **fields: Any) -> dict[str, Any]:
    return {"items": [item(1000, quantity=quantity)], "mrr": 1000 * quantity, **fields}


def plan(mrr: int, unit_amount: int, interval: str, **fields: Any) -> dict[str, Any]:
    return {"mrr": mrr, "items": [item(unit_amount, interval=interval)], **fields}


async def test_a_cheaper_plan_is_a_downgrade(history: History):
    await history.see(*steps("a", {"mrr": 9900}, {"mrr": 4900}))

    anomaly = await seen(history)
    assert (anomaly.detector, anomaly.subject, anomaly.severity) == ("plan_downgrade", "sub_a", "info")
    assert (anomaly.opened_at, anomaly.last_seen_at) == (NOON, NOON)
    assert anomaly.amounts == {"usd": 5000}
    assert anomaly.summary == "cus_a went down from 99.00 USD to 49.00 USD a month"
    assert anomaly.evidence["objects"]["prices_before"] == ["price_9900"]
    assert anomaly.evidence["objects"]["prices_after"] == ["price_4900"]
    assert anomaly.evidence["event_ids"] == ["evt_sub_a_2"]


async def test_fewer_seats_are_a_downgrade(history: History):
    await history.see(*steps("a", seats(10), seats(5)))

    assert (await seen(history)).summary == "cus_a went down from 100.00 USD to 50.00 USD a month (10 → 5 seats)"
    assert (await seen(history)).amounts == {"usd": 5000}


async def test_an_item_less_is_a_downgrade(history: History):
    both = {"items": [item(1000), item(500, item_id="si_2")], "mrr": 1500}

    await history.see(*steps("a", both, {"items": [item(1000)], "mrr": 1000}))

    assert (await seen(history)).amounts == {"usd": 500}


async def test_going_down_to_a_free_plan_is_a_downgrade(history: History):
    await history.see(*steps("a", {"mrr": 1000}, {"mrr": 0}))

    assert ((await seen(history)).severity, (await seen(history)).amounts) == ("warning", {"usd": 1000})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({"mrr": 900}, {"mrr": 9900}, id="an upgrade by price swap"),
        pytest.param(seats(5), seats(10), id="more seats"),
        pytest.param({"period_end_at": NOON}, {"period_end_at": NOON + timedelta(days=30)}, id="a renewal"),
        pytest.param({"discounted": True}, {"discounted": False}, id="a coupon that expired"),
        pytest.param(plan(1000, 12_000, "year"), plan(1000, 1000, "month"), id="year to month at the same monthly amount"),
        pytest.param(plan(1000, 1000, "month"), plan(833, 10_000, "year"), id="month to year with its discount"),
        pytest.param({"currency": "usd"}, {"currency": "eur", "mrr": 900}, id="another currency"),
        pytest.param({}, {"cancel_at_period_end": True}, id="a cancellation that was announced"),
        pytest.param({}, {"status": "canceled", "mrr": 0}, id="a cancellation"),
        pytest.param({}, {"status": "unpaid", "mrr": 500}, id="one that is no longer live"),
        pytest.param({"status": "incomplete"}, {"mrr": 500}, id="one that had not begun"),
        pytest.param({"status": "trialing"}, {"status": "trialing", "mrr": 500}, id="another plan during the trial"),
        pytest.param({"status": "trialing"}, {"mrr": 0}, id="a trial that ends in a free plan"),
        pytest.param({"mrr": None}, {"mrr": 500}, id="a monthly amount that was not known"),
        pytest.param({}, {"mrr": None}, id="a monthly amount that is not known"),
        pytest.param({"mrr": 1000}, {"mrr": 951}, id="less than what is worth it"),
        pytest.param(
            {"items": [item(1000), item(500)], "mrr": 1500}, {"items": [item(500), item(1000)], "mrr": 1500}, id="items in another order"
        ),
    ],
)
async def test_what_is_no_downgrade(history: History, before: dict[str, Any], after: dict[str, Any]):
    await history.see(*steps("a", before, after))

    assert await history.anomalies() == []


async def test_a_longer_interval_explains_a_discount_and_no_more(history: History):
    await history.see(
        *steps("a", plan(1000, 1000, "month"), plan(640, 7680, "year")), *steps("b", plan(1000, 1000, "month"), plan(660, 7920, "year"))
    )

    assert (await seen(history)).subject == "sub_a"


async def test_a_trial_that_ends_in_a_cheaper_paid_plan_is_a_downgrade(history: History):
    await history.see(*steps("a", {"status": "trialing", "mrr": 2000}, {"mrr": 1000}))

    assert (await seen(history)).amounts == {"usd": 1000}


async def test_states_are_compared_in_the_order_they_happened_whenever_they_arrive(history: History):
    first, second, third = steps("a", {"mrr": 1000}, {"mrr": 3000}, {"mrr": 2000})

    await history.see(third)
    await history.see(first)
    before = await history.anomalies()
    await history.see(second)

    assert (before, (await seen(history)).amounts) == ([], {"usd": 1000})


async def test_a_late_state_can_move_the_downgrade_to_where_it_was(history: History):
    first, second, third = steps("a", {"mrr": 2000}, {"mrr": 1000}, {"mrr": 1000})
    await history.see(first, third)
    found = await seen(history)

    await history.see(second)

    assert (found.opened_at, (await seen(history)).opened_at) == (at(DAY), NOON)
    assert (await seen(history)).anomaly_id == found.anomaly_id


async def test_an_item_taken_out_and_put_back_within_minutes_was_a_swap(history: History):
    before = subscription("a", -60 * DAY, updated=-DAY, mrr=1000)
    taken_out = subscription("a", -60 * DAY, snapshot=2, updated=0, mrr=200)
    put_back = subscription("a", -60 * DAY, snapshot=3, updated=9, mrr=1500)
    await history.see(before, taken_out, as_of=at(1))
    meanwhile = await seen(history)

    await history.see(put_back)

    assert (meanwhile.status, await history.anomalies()) == ("open", [])


async def test_coming_back_to_the_old_level_ends_it(history: History):
    await history.see(*steps("a", {"mrr": 2000}, {"mrr": 1000}), as_of=at(1))
    first = await seen(history)

    await history.see(subscription("a", -60 * DAY, snapshot=3, updated=DAY, mrr=1500), as_of=at(DAY))
    halfway = await seen(history)
    outcome = await history.see(subscription("a", -60 * DAY, snapshot=4, updated=2 * DAY, mrr=2500), as_of=at(2 * DAY))

    last = await seen(history)
    assert (first.status, halfway.status) == ("open", "open")
    assert [finding.anomaly_id for finding in outcome.resolved] == [first.anomaly_id]
    assert (last.status, last.resolved_at) == ("resolved", at(2 * DAY))
    assert last.summary.endswith("a month, since then back at its old level")


async def test_otherwise_it_settles_after_some_quiet_days(history: History):
    await history.see(*steps("a", {"mrr": 2000}, {"mrr": 1000}), as_of=at(1))

    await history.settle(as_of=at(3 * DAY - 1))
    before = await seen(history)
    await history.settle(as_of=at(3 * DAY))

    assert (before.status, (await seen(history)).status, (await seen(history)).resolved_at) == ("open", "resolved", at(3 * DAY))


async def test_going_down_step_by_step_is_one_anomaly_that_grows(history: History):
    await history.see(*steps("a", seats(10), seats(8), seats(5)))

    anomaly = await seen(history)
    assert (anomaly.opened_at, anomaly.last_seen_at, anomaly.amounts) == (NOON, at(DAY), {"usd": 5000})
    assert (anomaly.evidence["numbers"]["downgrades"], anomaly.summary) == (
        2,
        "cus_a went down from 100.00 USD to 50.00 USD a month (10 → 5 seats)",
    )


async def test_downgrades_that_are_weeks_apart_are_two(history: History):
    await history.see(
        *steps("a", seats(10), seats(8)),
        subscription("a", -60 * DAY, snapshot=9, updated=4 * DAY, items=[item(1000, quantity=5)], mrr=5000),
    )

    assert [anomaly.amounts for anomaly in await history.anomalies()] == [{"usd": 2000}, {"usd": 3000}]


async def test_losing_most_of_a_subscription_is_a_warning(history: History):
    await history.see(*steps("a", {"mrr": 4000}, {"mrr": 1000}), *steps("b", {"mrr": 4000}, {"mrr": 1001}))

    assert {anomaly.subject: anomaly.severity for anomaly in await history.anomalies()} == {"sub_a": "warning", "sub_b": "info"}


async def test_losing_a_good_part_of_what_all_subscriptions_are_worth_is_a_warning(history: History):
    others = [subscription(f"o_{i}", -20 * DAY, mrr=1000) for i in range(20)]
    elsewhere = [subscription(f"e_{i}", -20 * DAY, mrr=100, currency="jpy") for i in range(20)]
    await history.see(*others, *elsewhere)

    await history.see(*steps("a", {"mrr": 4000}, {"mrr": 2000}, start=-DAY), *steps("b", {"mrr": 4000}, {"mrr": 2001}, start=-DAY))

    assert {anomaly.subject: anomaly.severity for anomaly in await history.anomalies()} == {"sub_a": "warning", "sub_b": "info"}


async def test_each_subscription_and_account_is_judged_apart_in_its_currency(history: History):
    await history.see(
        *steps("a", {"mrr": 2000}, {"mrr": 1000}),
        *steps("b", {"mrr": 500, "currency": "jpy"}, {"mrr": 300, "currency": "jpy"}, account="acct_2"),
    )

    assert {anomaly.subject: anomaly.amounts for anomaly in await history.anomalies()} == {
        "sub_a": {"usd": 1000},
        "sub_b acct_2": {"jpy": 200},
    }


async def test_thresholds_say_what_is_worth_it(history: History):
    history.thresholds = {"plan_downgrade": PlanDowngrade(min_share=0.5, warning_share=0.6, commitment_discount=0)}

    await history.see(
        *steps("a", {"mrr": 1000}, {"mrr": 501}),
        *steps("b", {"mrr": 1000}, {"mrr": 500}),
        *steps("c", {"mrr": 1000}, {"mrr": 400}),
        *steps("d", plan(1000, 1000, "month"), plan(500, 6000, "year")),
    )

    severities = {anomaly.subject: anomaly.severity for anomaly in await history.anomalies()}
    assert severities == {"sub_b": "info", "sub_c": "warning", "sub_d": "info"}
