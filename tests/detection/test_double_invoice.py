from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from billingwatch.detection.detectors.double_invoice import DoubleInvoice

from .history import DAY, NOON, History, at, invoice
from .renewals import item, line, renewed, subscription

DOUBLE = "double_invoice"
SUB = {"subscription_id": "sub_1", "customer_id": "cus_1"}


def renewal(key: str, day: float, days: float = 31, **fields: Any) -> Any:
    """An invoice of sub_1, made `day` days after NOON, that bills the `days` after it, or what `lines` say."""
    return invoice(key, day * DAY, **{**SUB, **renewed(day, days), **fields})


async def test_two_renewals_for_one_period_are_an_anomaly(history: History):
    await history.see(renewal("a", 0, total=2900), renewal("b", 0.04, lines=[line(0, 31 * DAY)], total=2900))

    (anomaly,) = await history.anomalies(DOUBLE)
    assert (anomaly.subject, anomaly.severity, anomaly.status, anomaly.opened_at) == (
        "sub_1 2026-03-02",
        "critical",
        "open",
        at(0.04 * DAY),
    )
    assert anomaly.amounts == {"usd": 2900}
    assert anomaly.summary == (
        "Subscription sub_1 of cus_1 was invoiced 2 times for the period from 2026-03-02: 29.00 USD too much, both paid"
    )
    assert anomaly.evidence["objects"]["invoices"] == ["in_a", "in_b"]
    assert anomaly.evidence["numbers"]["overlap_days"] == 31


async def test_a_double_that_is_not_paid_yet_is_a_warning(history: History):
    await history.see(renewal("a", 0), renewal("b", 0.04, status="open", lines=[line(0, 31 * DAY)]))
    before = await history.anomalies(DOUBLE)

    await history.see(renewal("b", 0.04, status="paid", lines=[line(0, 31 * DAY)], snapshot=2))

    assert [anomaly.severity for anomaly in before + await history.anomalies(DOUBLE)] == ["warning", "critical"]


async def test_created_finalized_and_paid_of_one_invoice_are_one_invoice(history: History):
    for snapshot, status in enumerate(("draft", "open", "paid"), start=1):
        await history.see(renewal("a", 0, status=status, snapshot=snapshot))

    assert await history.anomalies(DOUBLE) == []


@pytest.mark.parametrize("reason", ["subscription_update", "subscription_threshold", "subscription_create", "manual"])
async def test_a_renewal_and_an_invoice_for_another_reason_are_no_double(history: History, reason: str):
    await history.see(renewal("a", 0), renewal("b", 0.04, billing_reason=reason, lines=[line(0, 31 * DAY)]))

    assert await history.anomalies(DOUBLE) == []


async def test_the_same_period_tells_where_lines_do_not(history: History):
    period = {"period_start_at": at(-31 * DAY), "period_end_at": at(0), "lines": None}
    await history.see(renewal("a", 0, **period), renewal("b", 0.5, **period))

    assert [anomaly.subject for anomaly in await history.anomalies(DOUBLE)] == ["sub_1 2026-03-02"]


@pytest.mark.parametrize(
    ("interval", "count", "days"), [("month", 1, 20), ("week", 1, 3), ("day", 1, 0.5), ("year", 1, 200), ("month", 3, 60)]
)
async def test_a_renewal_long_before_the_interval_has_passed_drifts(history: History, interval: str, count: int, days: float):
    length = {"month": 30, "week": 7, "day": 1, "year": 365}[interval] * count
    period: dict[str, Any] = {"lines": None, "period_start_at": None}
    sold = item(0, length * DAY, interval=interval, interval_count=count)
    await history.see(
        subscription("1", 0, sold),
        renewal("a", 0, period_end_at=at(0), **period),
        renewal("b", days, period_end_at=at(days * DAY), **{**period, "period_start_at": at((days - length) * DAY)}),
    )

    assert len(await history.anomalies(DOUBLE)) == 1


@pytest.mark.parametrize("days", [[0, 1, 2, 3], [0, 7, 14], [0, 31, 61, 92]])
async def test_renewals_an_interval_apart_are_none_also_daily_and_weekly(history: History, days: list[int]):
    interval = {1: "day", 7: "week", 31: "month"}[days[1]]
    ends = [*days[1:], days[-1] + days[1]]
    for key, (start, end) in enumerate(zip(days, ends, strict=True)):
        await history.see(
            subscription("1", start * DAY, item(start * DAY, end * DAY, interval=interval), made=0), renewal(str(key), start, end - start)
        )

    assert await history.anomalies(DOUBLE) == []


async def test_an_anchor_on_the_31st_renews_after_28_to_31_days(history: History):
    turns = [datetime(2026, month, day, 12, tzinfo=UTC) for month, day in ((1, 31), (2, 28), (3, 31), (4, 30), (5, 31))]
    days = [(turn - NOON).total_seconds() / 86400 for turn in turns]
    for key, (start, end) in enumerate(pairwise(days)):
        with_lines = renewal(str(key), start, end - start)
        without = renewal(f"n{key}", start, lines=None, subscription_id="sub_2", period_start_at=None, period_end_at=at(start * DAY))
        sold = item(start * DAY, end * DAY)
        await history.see(subscription("1", start * DAY, sold, made=0), subscription("2", start * DAY, sold, made=0), with_lines, without)

    assert await history.anomalies(DOUBLE) == []


async def test_a_yearly_plan_of_29_february_renews_on_28_february(history: History):
    turns = [datetime(year, 2, day, 12, tzinfo=UTC) for year, day in ((2024, 29), (2025, 28), (2026, 28))]
    days = [(turn - NOON).total_seconds() / 86400 for turn in turns]
    for key, (start, end) in enumerate(zip(days, [*days[1:], days[-1] + 365], strict=True)):
        sold = item(start * DAY, end * DAY, interval="year")
        await history.see(subscription("1", start * DAY, sold, made=0), renewal(str(key), start, end - start))

    assert await history.anomalies(DOUBLE) == []


async def test_a_moved_billing_anchor_explains_an_early_renewal(history: History):
    await history.see(
        subscription("1", 0, item(0, 31 * DAY), made=0),
        renewal("a", 0),
        subscription("1", 5 * DAY, item(5 * DAY, 10 * DAY), made=0, billing_cycle_anchor_at=at(10 * DAY)),
        renewal("b", 10),
    )

    assert await history.anomalies(DOUBLE) == []


async def test_a_new_trial_explains_an_early_renewal(history: History):
    await history.see(
        subscription("1", 0, item(0, 31 * DAY), made=0),
        renewal("a", 0),
        subscription("1", 5 * DAY, item(5 * DAY, 12 * DAY), made=0, status="trialing", trial_end_at=at(12 * DAY)),
        renewal("b", 12),
    )

    assert await history.anomalies(DOUBLE) == []


async def test_an_update_that_billed_a_period_of_its_own_explains_an_early_renewal(history: History):
    update = invoice("u", 10 * DAY, **SUB, billing_reason="subscription_update", lines=[line(10 * DAY, 17 * DAY)])
    await history.see(renewal("a", 0), update, renewal("b", 17, 7))

    assert await history.anomalies(DOUBLE) == []


async def test_an_update_of_prorations_alone_explains_nothing(history: History):
    update = invoice("u", 10 * DAY, **SUB, billing_reason="subscription_update", lines=[line(10 * DAY, 31 * DAY, 300, proration=True)])
    await history.see(renewal("a", 0), update, renewal("b", 17))

    assert len(await history.anomalies(DOUBLE)) == 1


@pytest.mark.parametrize(("late", "found"), [(True, 0), (False, 1)])
async def test_a_state_told_late_explains_after_all(history: History, late: bool, found: int):
    await history.see(subscription("1", 0, item(0, 31 * DAY), made=0), renewal("a", 0), renewal("b", 10))
    assert len(await history.anomalies(DOUBLE)) == 1

    anchor = at(10 * DAY) if late else at(0)
    await history.see(subscription("1", 5 * DAY, item(5 * DAY, 10 * DAY), made=0, billing_cycle_anchor_at=anchor))

    assert len(await history.anomalies(DOUBLE)) == found


@pytest.mark.parametrize("withdrawn", ["a", "b"])
@pytest.mark.parametrize(("status", "voided_at"), [("void", at(300)), ("deleted", None)])
async def test_withdrawing_either_invoice_ends_it(history: History, withdrawn: str, status: str, voided_at: datetime | None):
    period = [line(0, 31 * DAY)]
    await history.see(renewal("a", 0, lines=period, status="open"), renewal("b", 0.04, lines=period, status="draft"))

    day = 0 if withdrawn == "a" else 0.04
    outcome = await history.see(renewal(withdrawn, day, lines=period, status=status, voided_at=voided_at, snapshot=2, updated=300))

    (anomaly,) = await history.anomalies(DOUBLE)
    assert [finding.anomaly_id for finding in outcome.resolved] == [anomaly.anomaly_id]
    assert (anomaly.status, anomaly.resolution, anomaly.resolved_at) == ("resolved", "automatic", at(300))


async def test_of_three_invoices_two_must_go(history: History):
    period = [line(0, 31 * DAY)]
    await history.see(*(renewal(key, day, lines=period, status="open") for key, day in (("a", 0), ("b", 0.01), ("c", 0.02))))
    await history.see(renewal("a", 0, lines=period, status="void", voided_at=at(100), snapshot=2))
    (anomaly,) = await history.anomalies(DOUBLE)
    assert (anomaly.status, anomaly.amounts, anomaly.evidence["numbers"]["invoices"]) == ("open", {"usd": 2000}, 3)

    await history.see(renewal("c", 0.02, lines=period, status="void", voided_at=at(200), snapshot=2))

    (anomaly,) = await history.anomalies(DOUBLE)
    assert (anomaly.status, anomaly.resolved_at) == ("resolved", at(200))


async def test_a_renewal_after_the_first_was_voided_is_none(history: History):
    period = [line(0, 31 * DAY)]
    await history.see(renewal("a", 0, lines=period, status="void", voided_at=at(30)), renewal("b", 0.04, lines=period))

    assert await history.anomalies(DOUBLE) == []


async def test_two_subscriptions_of_one_customer_are_apart(history: History):
    await history.see(renewal("a", 0), renewal("b", 0.01, subscription_id="sub_2"))

    assert await history.anomalies(DOUBLE) == []


async def test_accounts_and_currencies_are_apart(history: History):
    period = [line(0, 31 * DAY)]
    for account in (None, "acct_2"):
        for key, day in (("a", 0), ("b", 0.01)):
            await history.see(
                renewal(f"{key}_{account}", day, lines=period, account=account, subscription_id=f"sub_{account}", currency="eur")
            )

    assert [(anomaly.subject, anomaly.amounts) for anomaly in await history.anomalies(DOUBLE)] in (
        [("sub_None 2026-03-02", {"eur": 1000}), ("sub_acct_2 2026-03-02 acct_2", {"eur": 1000})],
        [("sub_acct_2 2026-03-02 acct_2", {"eur": 1000}), ("sub_None 2026-03-02", {"eur": 1000})],
    )


async def test_invoices_of_nothing_are_no_double(history: History):
    await history.see(renewal("a", 0, total=0), renewal("b", 0.04, lines=[line(0, 31 * DAY)]))

    assert await history.anomalies(DOUBLE) == []


async def test_a_part_billed_twice_counts_from_the_threshold_on(history: History):
    history.thresholds = {DOUBLE: DoubleInvoice(min_overlap=0.5)}

    await history.see(renewal("a", 0), renewal("b", 20))
    await history.see(renewal("c", 0, subscription_id="sub_2"), renewal("d", 10, subscription_id="sub_2"))

    assert [anomaly.evidence["objects"]["subscription"] for anomaly in await history.anomalies(DOUBLE)] == ["sub_2"]


@pytest.mark.parametrize(("first", "second"), [(31, 30), (31, 28), (30, 31)])
async def test_a_renewal_three_days_early_is_one_however_long_the_months_are(history: History, first: int, second: int):
    await history.see(renewal("a", 0, first), renewal("b", first - 3, second))

    assert (await history.anomaly()).evidence["numbers"]["overlap_days"] == 3


def known(told: float, start: float = -22, end: float = 9, **fields: Any) -> Any:
    """What an event at `told` (days) says of sub_1, whose period began before the history."""
    period = {"period_start_at": at(start * DAY), "period_end_at": at(end * DAY), "mrr": 1000}
    return subscription("1", told * DAY, item(start * DAY, end * DAY), made=-90 * DAY, **{**period, **fields})


async def test_a_period_from_before_the_history_is_known_by_the_subscription(history: History):
    await history.see(known(-20), renewal("b", 0, total=2900))

    (anomaly,) = await history.anomalies(DOUBLE)
    assert (anomaly.severity, anomaly.evidence["numbers"]["overlap_days"]) == ("warning", 9)
    assert anomaly.summary == (
        "Subscription sub_1 of cus_1 was invoiced 2 times for the period from 2026-02-08: 29.00 USD too much, the first before this history"
    )
    assert anomaly.evidence["objects"]["invoices"] == ["in_b"]
    assert anomaly.evidence["event_ids"] == [known(-20).event_id, renewal("b", 0).event_id]


async def test_the_first_invoice_that_comes_late_is_the_one_it_was_known_by(history: History):
    await history.see(known(-20), renewal("b", 0))
    before = await history.anomalies(DOUBLE)
    await history.see(renewal("a", -22))

    (anomaly,) = await history.anomalies(DOUBLE)
    assert (anomaly.fingerprint, anomaly.severity) == (before[0].fingerprint, "critical")
    assert anomaly.evidence["objects"]["invoices"] == ["in_a", "in_b"]


async def test_a_renewal_on_time_is_none_though_its_period_is_told_before_its_invoice(history: History):
    told_first = known(-1 / 1440, start=0, end=31)
    await history.see(known(-20, start=-31, end=0), told_first, renewal("b", 0))

    assert await history.anomalies(DOUBLE) == []


@pytest.mark.parametrize(
    "fields",
    [{"status": "trialing", "trial_end_at": at(9 * DAY)}, {"mrr": 0}, {"status": "incomplete"}],
    ids=["trial", "free", "incomplete"],
)
async def test_a_period_that_nobody_paid_for_is_billed_once(history: History, fields: dict[str, Any]):
    await history.see(known(-20, **fields), renewal("b", 0))

    assert await history.anomalies(DOUBLE) == []


async def test_a_moved_anchor_explains_a_renewal_within_a_period_from_before_the_history(history: History):
    await history.see(known(-20), known(-5, end=0, billing_cycle_anchor_at=at(0)), renewal("b", 0))

    assert await history.anomalies(DOUBLE) == []


async def test_use_is_billed_when_the_period_from_before_the_history_has_ended(history: History):
    metered = [item(-31 * DAY, 0, usage_type="metered"), item(-200 * DAY, 165 * DAY, item_id="si_2", interval="year")]
    told = subscription("1", -20 * DAY, *metered, made=-90 * DAY, mrr=1000, period_start_at=at(-31 * DAY), period_end_at=at(0))
    await history.see(told, renewal("b", 0, lines=[line(-31 * DAY, 0)]))

    assert await history.anomalies(DOUBLE) == []
