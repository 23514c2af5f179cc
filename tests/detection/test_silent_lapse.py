from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billingwatch.billing.rows import Row
from billingwatch.detection.detectors.silent_lapse import SilentLapse

from .history import DAY, NOON, History, at, invoice
from .renewals import item, line, subscription

LAPSE = "silent_lapse"
GRACE = 48 * 60  # minutes, as by default
APRIL = datetime(2026, 4, 2, 12, tzinfo=UTC)  # a month after NOON
MONTH = 31 * DAY


def first_month(amount: int | None = 1000, **fields: Any) -> list[Row]:
    """sub_1 and its first invoice, for the month from NOON to APRIL."""
    return [
        subscription("1", 0, item(0, MONTH, amount), **fields),
        billed("a", 0, total=fields.get("total", 1000), billing_reason="subscription_create"),
    ]


def billed(key: str, start: float, end: float | None = None, *, made: float | None = None, **fields: Any) -> Row:
    """An invoice of sub_1 for the period from `start` to `end`."""
    end = start + MONTH if end is None else end
    lines = [line(start, end, fields.get("total", 1000))]
    return invoice(key, start if made is None else made, **{"subscription_id": "sub_1", "lines": lines, **fields})


def turned(**fields: Any) -> Row:
    """sub_1 in its second month."""
    return subscription("1", MONTH, item(MONTH, 61 * DAY), made=0, **fields)


async def lapses(history: History, days: float = 40) -> list[str]:
    await history.tick(at(days * DAY))
    return [anomaly.subject for anomaly in await history.anomalies(LAPSE)]


async def test_a_subscription_that_is_not_invoiced_after_its_period_lapses(history: History):
    await history.see(*first_month(customer_id="cus_1"))

    await history.tick(at(MONTH + GRACE - 1))
    before = await history.anomalies(LAPSE)
    await history.tick(at(MONTH + GRACE))

    (anomaly,) = await history.anomalies(LAPSE)
    assert before == []
    assert (anomaly.subject, anomaly.severity, anomaly.status) == ("sub_1 2026-04-02", "warning", "open")
    assert (anomaly.opened_at, anomaly.last_seen_at) == (APRIL + timedelta(hours=48), APRIL + timedelta(hours=48))
    assert anomaly.amounts == {"usd": 1000}
    assert anomaly.summary == "Subscription sub_1 of cus_1 was not invoiced on 2026-04-02; 10.00 USD not collected"
    assert anomaly.evidence["objects"] == {
        "subscription": "sub_1",
        "customer": "cus_1",
        "items": ["si_1"],
        "draft": None,
        "last_invoice": "in_a",
    }


async def test_a_period_that_turned_without_an_invoice_lapses_too(history: History):
    await history.see(*first_month(), turned())

    assert await lapses(history) == ["sub_1 2026-04-02"]


async def test_turn_before_the_first_event_is_not_due(history: History):
    # Its period began half an hour before anything was told of it, and its invoice then.
    await history.see(subscription("1", 30, item(0, MONTH), made=-MONTH), invoice("other", 60))

    assert await lapses(history, days=10) == []


@pytest.mark.parametrize("with_lines", [True, False])
async def test_a_subscription_that_was_renewed_does_not(history: History, with_lines: bool):
    renewal = billed("b", MONTH, 61 * DAY, **({} if with_lines else {"lines": None}))

    await history.see(*first_month(), turned(), renewal)

    assert await lapses(history) == []


async def test_renewals_need_not_be_told_by_the_subscription_where_the_invoice_is(history: History):
    await history.see(*first_month(), billed("b", MONTH, 61 * DAY, made=MONTH + 30))

    assert await lapses(history) == []


async def test_one_that_is_first_heard_of_within_its_period_is_missed_at_its_end(history: History):
    """As all are when a tenant begins to listen: a change of the subscription is all that ever told of it."""
    await history.see(subscription("1", 12 * DAY, item(0, MONTH), made=-300 * DAY), invoice("of_another", 20 * DAY))

    assert await lapses(history) == ["sub_1 2026-04-02"]


async def test_a_period_that_began_before_anything_was_heard_of_it_may_have_been_invoiced(history: History):
    await history.see(subscription("1", 120, item(0, MONTH), made=-300 * DAY), invoice("of_another", 60))

    assert await lapses(history, days=20) == []


async def test_an_invoice_that_comes_late_ends_it(history: History):
    await history.see(*first_month())
    await history.tick(at(MONTH + GRACE + 60))

    await history.see(billed("b", MONTH, 61 * DAY, made=MONTH + GRACE + 90))
    outcome = await history.tick(at(MONTH + GRACE + 120))

    (anomaly,) = await history.anomalies(LAPSE)
    assert [finding.anomaly_id for finding in outcome.resolved] == [anomaly.anomaly_id]
    assert (anomaly.status, anomaly.resolution, anomaly.resolved_at) == ("resolved", "automatic", at(MONTH + GRACE + 90))


@pytest.mark.parametrize("fields", [{"status": "canceled"}, {"status": "unpaid"}, {"collection_paused": True}])
async def test_it_ends_when_the_subscription_ends_or_pauses(history: History, fields: dict[str, Any]):
    await history.see(*first_month())
    await history.tick(at(40 * DAY))

    await history.see(subscription("1", 41 * DAY, item(0, MONTH), made=0, **fields))
    await history.tick(at(42 * DAY))

    (anomaly,) = await history.anomalies(LAPSE)
    assert (anomaly.status, anomaly.resolved_at) == ("resolved", at(41 * DAY))


async def test_an_invoice_told_late_explains_after_all(history: History):
    await history.see(*first_month())
    await history.tick(at(40 * DAY))
    assert len(await history.anomalies(LAPSE)) == 1

    await history.see(billed("b", MONTH, 61 * DAY))

    assert await history.anomalies(LAPSE) == []


async def test_a_cancellation_told_late_explains_after_all(history: History):
    await history.see(*first_month())
    await history.tick(at(40 * DAY))

    await history.see(subscription("1", MONTH, item(0, MONTH), made=0, status="canceled"))

    assert await history.anomalies(LAPSE) == []


async def test_what_became_of_it_later_does_not_change_what_was_judged(history: History):
    await history.see(*first_month(), subscription("1", 60 * DAY, item(0, MONTH), made=0, status="canceled"))

    assert await lapses(history, 70) == ["sub_1 2026-04-02"]


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "trialing"},
        {"status": "incomplete"},
        {"status": "incomplete_expired"},
        {"status": "paused"},
        {"status": "unpaid"},
        {"status": "canceled"},
        {"collection_paused": True},
        {"cancel_at_period_end": True},
        {"cancel_at": APRIL},
    ],
)
async def test_trials_pauses_and_endings_are_no_lapse(history: History, fields: dict[str, Any]):
    await history.see(*first_month(), subscription("1", DAY, item(0, MONTH), made=0, **fields))

    assert await lapses(history) == []


@pytest.mark.parametrize("sold", [{"amount": 0}, {"amount": None, "usage_type": "metered"}, {"quantity": 0, "amount": 0}])
async def test_free_plans_and_usage_alone_are_no_lapse(history: History, sold: dict[str, Any]):
    await history.see(subscription("1", 0, {**item(0, MONTH), **sold}), billed("a", 0, total=0))

    assert await lapses(history) == []


@pytest.mark.parametrize(("last", "found"), [(0, []), (200, [200])])
async def test_of_a_discounted_subscription_the_last_invoice_tells_whether_it_is_free(history: History, last: int, found: list[int]):
    await history.see(subscription("1", 0, item(0, MONTH), discounted=True), billed("a", 0, total=last))
    await history.tick(at(40 * DAY))

    assert [anomaly.amounts["usd"] for anomaly in await history.anomalies(LAPSE)] == found


async def test_of_a_tiered_subscription_the_last_invoice_tells_what_is_missing(history: History):
    await history.see(subscription("1", 0, item(0, MONTH, None)), billed("a", 0, total=700))
    await history.tick(at(40 * DAY))

    assert [anomaly.amounts for anomaly in await history.anomalies(LAPSE)] == [{"usd": 700}]


async def test_an_invoice_that_was_sent_and_is_not_due_yet_is_an_invoice(history: History):
    sent = billed("b", MONTH, 61 * DAY, status="open", collection_method="send_invoice", due_at=at(61 * DAY))

    await history.see(*first_month(collection_method="send_invoice"), turned(collection_method="send_invoice"), sent)

    assert await lapses(history, 60) == []


async def test_one_that_was_never_invoiced_at_all_lapses_from_its_creation(history: History):
    await history.see(invoice("other", -DAY), subscription("1", 0, item(0, MONTH), customer_id="cus_1"))
    await history.tick(at(10 * DAY))

    (anomaly,) = await history.anomalies(LAPSE)
    assert anomaly.summary == "Subscription sub_1 of cus_1 was not invoiced on 2026-03-02, nor ever before; 10.00 USD not collected"


async def test_where_no_invoices_are_delivered_none_is_missed(history: History):
    await history.see(subscription("1", 0, item(0, MONTH)))

    assert await lapses(history) == []


async def test_two_subscriptions_of_one_customer_are_apart(history: History):
    other = subscription("2", 0, item(0, MONTH, item_id="si_2"), customer_id="cus_1")
    renewals = [billed("b", MONTH, 61 * DAY, subscription_id="sub_2", lines=[line(MONTH, 61 * DAY, item_id="si_2")])]
    await history.see(*first_month(customer_id="cus_1"), other, billed("c", 0, subscription_id="sub_2"), *renewals)

    assert await lapses(history) == ["sub_1 2026-04-02"]


@pytest.mark.parametrize("reason", ["subscription_update", "manual"])
async def test_an_invoice_for_something_else_is_not_the_renewal(history: History, reason: str):
    prorations = [line(MONTH, 61 * DAY, 300, proration=True)]
    await history.see(*first_month(), turned(), billed("b", MONTH, made=MONTH + 60, billing_reason=reason, lines=prorations))

    assert await lapses(history) == ["sub_1 2026-04-02"]


async def test_an_update_that_bills_the_new_period_is_the_renewal(history: History):
    moved = subscription("1", MONTH, item(MONTH, 61 * DAY), made=0, billing_cycle_anchor_at=APRIL)
    await history.see(*first_month(), moved, billed("b", MONTH, 61 * DAY, billing_reason="subscription_update"))

    assert await lapses(history) == []


async def test_the_free_time_before_a_fixed_anchor_is_no_lapse_and_the_first_period_is(history: History):
    first = subscription("1", 0, item(0, 10 * DAY))
    await history.see(invoice("other", -DAY), first, subscription("1", 10 * DAY, item(10 * DAY, 41 * DAY), made=0))

    assert await lapses(history) == ["sub_1 2026-03-12"]


async def test_an_item_of_a_longer_interval_has_its_own_calendar(history: History):
    yearly = item(0, 365 * DAY, 12_000, item_id="si_2", interval="year")
    await history.see(
        subscription("1", 0, item(0, MONTH), yearly), billed("a", 0, lines=[line(0, MONTH), line(0, 365 * DAY, item_id="si_2")])
    )
    await history.tick(at(40 * DAY))

    (anomaly,) = await history.anomalies(LAPSE)
    assert (anomaly.evidence["objects"]["items"], anomaly.amounts) == (["si_1"], {"usd": 1000})


@pytest.mark.parametrize(
    ("interval", "first", "last"),
    [
        ("month", (2026, 1, 31), (2026, 2, 28)),
        ("month", (2026, 2, 28), (2026, 3, 31)),
        ("month", (2026, 3, 31), (2026, 4, 30)),
        ("month", (2028, 1, 31), (2028, 2, 29)),
        ("month", (2026, 12, 15), (2027, 1, 15)),
        ("year", (2028, 2, 29), (2029, 2, 28)),
        ("year", (2027, 2, 28), (2028, 2, 29)),
        ("week", (2026, 3, 2), (2026, 3, 9)),
        ("day", (2026, 3, 2), (2026, 3, 3)),
    ],
)
async def test_months_and_years_are_counted_with_the_anchors_day(
    history: History, interval: str, first: tuple[int, int, int], last: tuple[int, int, int]
):
    start, end = ((datetime(*day, 12, tzinfo=UTC) - NOON) / timedelta(minutes=1) for day in (first, last))
    sold = item(start, end, interval=interval)
    await history.see(subscription("1", start + 0.5, sold), billed("a", start, end))
    history.judged_until = at(start + 60)

    await history.tick(at(end + 3 * DAY))

    assert [anomaly.subject for anomaly in await history.anomalies(LAPSE)] == [f"sub_1 {datetime(*last, tzinfo=UTC):%Y-%m-%d}"]


@pytest.mark.parametrize(("missed", "found"), [(False, 0), (True, 1)])
async def test_the_next_renewal_of_a_daily_plan_is_not_taken_for_the_one_that_is_missing(history: History, missed: bool, found: int):
    for day in range(6):
        period = day * DAY, (day + 1) * DAY
        await history.see(subscription("1", day * DAY, item(*period, interval="day"), made=0))
        if day != 2 or not missed:
            await history.see(billed(str(day), *period))

    assert len(await lapses(history, 5)) == found


async def test_a_renewal_that_stays_a_draft_blocks_billing_as_silently(history: History):
    draft = billed("b", MONTH, 61 * DAY, status="draft", finalized_at=None, customer_id="cus_1")
    await history.see(*first_month(), turned(), draft)

    await history.tick(at(MONTH + 2 * GRACE - 1))
    before = await history.anomalies(LAPSE)
    await history.tick(at(MONTH + 2 * GRACE))

    (anomaly,) = await history.anomalies(LAPSE)
    assert before == []
    assert (anomaly.subject, anomaly.opened_at, anomaly.amounts) == ("in_b", at(MONTH + 2 * GRACE), {"usd": 1000})
    assert anomaly.summary == "Invoice in_b of cus_1 is still a draft after 96 hours; 10.00 USD not collected"

    outcome = await history.see(billed("b", MONTH, 61 * DAY, status="open", finalized_at=at(40 * DAY), snapshot=2))

    (anomaly,) = await history.anomalies(LAPSE)
    assert (anomaly.status, anomaly.resolved_at, len(outcome.resolved)) == ("resolved", at(40 * DAY), 1)


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"finalized_at": at(MONTH + 72 * 60)}, {}),
        ({"total": 0}, {}),
        ({"collection_method": "send_invoice"}, {}),
        ({"billing_reason": "manual"}, {}),
        ({}, {"collection_paused": True}),
        ({}, {"status": "unpaid"}),
    ],
)
async def test_a_draft_that_is_meant_to_be_one_is_no_lapse(history: History, fields: dict[str, Any], state: dict[str, Any]):
    draft = billed("b", MONTH, 61 * DAY, **{"status": "draft" if "finalized_at" not in fields else "open", "finalized_at": None, **fields})
    renewal = billed("c", MONTH, 61 * DAY)

    await history.see(*first_month(), turned(**state), draft, renewal)

    assert await lapses(history) == []


async def test_where_nothing_tells_that_invoices_become_final_a_draft_is_no_lapse(history: History):
    drafts = [billed(key, day, status="draft", finalized_at=None) for key, day in (("a", 0), ("b", MONTH))]
    await history.see(subscription("1", 0, item(0, MONTH)), turned(), *drafts)

    assert await lapses(history) == []


async def test_accounts_are_told_apart(history: History):
    await history.see(
        subscription("1", 0, item(0, MONTH), account="acct_2", currency="jpy"), billed("a", 0, account="acct_2", currency="jpy")
    )
    await history.tick(at(40 * DAY))

    assert [(anomaly.subject, anomaly.amounts) for anomaly in await history.anomalies()] == [("sub_1 2026-04-02 acct_2", {"jpy": 1000})]


async def test_the_grace_is_a_threshold(history: History):
    history.thresholds = {LAPSE: SilentLapse(grace_hours=12)}
    await history.see(*first_month())

    await history.tick(at(MONTH + 12 * 60))

    assert [anomaly.opened_at for anomaly in await history.anomalies()] == [at(MONTH + 12 * 60)]
