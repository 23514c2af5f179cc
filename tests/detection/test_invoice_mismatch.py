from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billingwatch.detection.detectors.invoice_mismatch import InvoiceMismatch

from .history import DAY, NOON, History, at, invoice
from .renewals import item, line, subscription

MISMATCH = "invoice_mismatch"
MONTH = 31 * DAY


def billed(key: str = "a", *lines: dict[str, Any], minutes: float = 0, **fields: Any) -> Any:
    """An invoice of sub_1 with these lines, and sums that follow from them unless told otherwise."""
    subtotal = sum(each["amount"] for each in lines)
    defaults = {"subscription_id": "sub_1", "customer_id": "cus_1", "subtotal": subtotal, "total": subtotal, "lines": list(lines)}
    return invoice(key, minutes, **{**defaults, "discount_amount": 0, "tax_amount": 0, **fields})


async def test_a_line_that_the_subscriptions_item_does_not_explain_is_an_anomaly(history: History):
    await history.see(subscription("1", 0, item(0, MONTH, 2000, quantity=2)), billed("a", line(0, MONTH, 2900, quantity=2), number="INV-7"))

    (anomaly,) = await history.anomalies(MISMATCH)
    assert (anomaly.subject, anomaly.severity, anomaly.status, anomaly.opened_at) == ("in_a", "critical", "open", at(1))
    assert anomaly.amounts == {"usd": 900}
    assert anomaly.summary == "Invoice INV-7 of cus_1 is 9.00 USD more than the subscription's items explain"
    assert anomaly.evidence["numbers"]["lines"] == [{"subscription_item": "si_1", "quantity": 2, "amount": 2900, "expected": 2000}]
    assert len(anomaly.evidence["event_ids"]) == 2


async def test_billing_too_little_is_a_warning(history: History):
    await history.see(subscription("1", 0, item(0, MONTH, 2000)), billed("a", line(0, MONTH, 500)))

    (anomaly,) = await history.anomalies(MISMATCH)
    assert (anomaly.severity, anomaly.amounts) == ("warning", {"usd": 1500})
    assert "15.00 USD less than" in anomaly.summary


async def test_an_ordinary_invoice_with_prorations_discounts_and_tax_is_none(history: History):
    await history.see(
        subscription("1", 0, item(0, MONTH)),
        billed(
            "a",
            line(0, MONTH),
            line(-5 * DAY, 0, -300, proration=True),
            line(0, 0, 700, item_id=None),
            discount_amount=200,
            tax_amount=240,
            total=1440,
        ),
    )

    assert await history.anomalies() == []


async def test_a_draft_is_judged_once_it_is_final(history: History):
    await history.see(subscription("1", 0, item(0, MONTH)), billed("a", line(0, MONTH, 5000), status="draft", finalized_at=None))
    as_draft = await history.anomalies(MISMATCH)

    await history.see(billed("a", line(0, MONTH, 5000), status="open", snapshot=2))

    assert as_draft == []
    assert [anomaly.severity for anomaly in await history.anomalies(MISMATCH)] == ["warning"]


@pytest.mark.parametrize(
    ("sold", "on_line"),
    [
        ({"amount": None, "unit_amount": None}, {}),  # tiers, usage, another currency
        ({"interval": "year"}, {}),  # no whole interval: a stub
        ({"interval": None}, {}),
        ({}, {"proration": True}),
        ({}, {"subscription_item_id": None}),
        ({}, {"subscription_item_id": "si_2"}),
        ({}, {"period_end": None}),
    ],
)
async def test_what_cannot_be_known_is_not_judged(history: History, sold: dict[str, Any], on_line: dict[str, Any]):
    await history.see(subscription("1", 0, {**item(0, MONTH), **sold}), billed("a", {**line(0, MONTH, 4321), **on_line}))

    assert await history.anomalies() == []


async def test_a_line_of_nothing_in_a_trial_is_none(history: History):
    trial = {"status": "trialing", "trial_end_at": at(MONTH)}
    await history.see(subscription("1", 0, item(0, MONTH), **trial), billed("a", line(0, MONTH, 0)))

    assert await history.anomalies() == []


async def test_a_line_of_nothing_without_a_trial_is_one(history: History):
    await history.see(subscription("1", 0, item(0, MONTH)), billed("a", line(0, MONTH, 0)))

    assert len(await history.anomalies(MISMATCH)) == 1


@pytest.mark.parametrize(("billed_amount", "found"), [(1000, 0), (2000, 0), (3000, 1)])
async def test_a_price_changed_within_the_minute_of_the_renewal_may_count_or_not(history: History, billed_amount: int, found: int):
    await history.see(
        subscription("1", -MONTH, item(-MONTH, 0), made=-MONTH),
        subscription("1", 0.5, item(0, MONTH, 2000), made=-MONTH),
        billed("a", line(0, MONTH, billed_amount)),
    )

    assert len(await history.anomalies(MISMATCH)) == found


@pytest.mark.parametrize(("billed_amount", "found"), [(1000, 1), (2000, 0)])
async def test_the_price_in_force_when_the_period_began_counts(history: History, billed_amount: int, found: int):
    await history.see(
        subscription("1", -MONTH, item(-MONTH, 0), made=-MONTH),
        subscription("1", -DAY, item(-MONTH, 0, 2000), made=-MONTH),
        subscription("1", 5 * DAY, item(0, MONTH, 1000), made=-MONTH),
        billed("a", line(0, MONTH, billed_amount)),
    )

    assert len(await history.anomalies(MISMATCH)) == found


async def test_a_change_of_price_told_late_explains_after_all(history: History):
    await history.see(subscription("1", -MONTH, item(-MONTH, 0), made=-MONTH), billed("a", line(0, MONTH, 2000)))
    assert len(await history.anomalies(MISMATCH)) == 1

    await history.see(subscription("1", -DAY, item(-MONTH, 0, 2000), made=-MONTH))

    assert await history.anomalies(MISMATCH) == []


@pytest.mark.parametrize(("first", "last"), [((1, 31), (2, 28)), ((2, 28), (3, 31)), ((3, 31), (4, 30)), ((3, 2), (4, 2))])
async def test_an_anchor_on_the_31st_makes_whole_months_of_28_to_31_days(history: History, first: tuple[int, int], last: tuple[int, int]):
    start, end = ((datetime(2026, *day, 12, tzinfo=UTC) - NOON) / timedelta(minutes=1) for day in (first, last))

    await history.see(subscription("1", start, item(start, end)), billed("a", line(start, end, 2000), minutes=start))

    assert len(await history.anomalies(MISMATCH)) == 1


async def test_lines_that_do_not_add_up_to_the_subtotal_are_one(history: History):
    await history.see(billed("a", line(0, MONTH), line(0, 0, 500, item_id=None), subtotal=1800, total=1800))

    (anomaly,) = await history.anomalies(MISMATCH)
    assert anomaly.summary == "Invoice in_a of cus_1 is 3.00 USD more than its lines explain"
    assert anomaly.evidence["numbers"]["subtotal_differs_by"] == 300


@pytest.mark.parametrize("on_line", [{"listed_all": False}, {"discounted": True}, {"amount": None}])
async def test_lines_that_are_not_known_whole_are_not_added_up(history: History, on_line: dict[str, Any]):
    given = line(0, MONTH)
    await history.see(billed("a", given, subtotal=1800, total=1800, lines=[{**given, **on_line}]))

    assert await history.anomalies() == []


@pytest.mark.parametrize(
    ("fields", "differs_by"),
    [
        ({"discount_amount": 200, "total": 1000}, 200),
        ({"tax_amount": 190, "total": 1000}, -190),
        ({"discount_amount": 200, "tax_amount": 100, "total": 900}, None),
        ({"discount_amount": None, "total": 700}, None),
        ({"tax_amount": None, "total": 1190}, None),
        ({"tax_amount": 191, "total": 1190}, None),  # rounding
    ],
)
async def test_the_total_is_the_subtotal_without_discounts_and_with_the_tax_on_top(
    history: History, fields: dict[str, Any], differs_by: int | None
):
    await history.see(billed("a", line(0, MONTH), **fields))

    found = [anomaly.evidence["numbers"]["total_differs_by"] for anomaly in await history.anomalies(MISMATCH)]
    assert found == ([] if differs_by is None else [differs_by])


@pytest.mark.parametrize(("total", "found"), [(800, 0), (1000, 0), (900, 0), (1100, 1), (700, 1)])
async def test_a_discount_of_a_line_may_be_in_the_subtotal_already(history: History, total: int, found: int):
    await history.see(billed("a", line(0, MONTH, discounted=True), discount_amount=200, total=total))

    assert len(await history.anomalies(MISMATCH)) == found


async def test_a_credit_of_the_customers_balance_changes_what_is_due_and_not_the_total(history: History):
    await history.see(billed("a", line(0, MONTH), amount_due=0, amount_paid=0, starting_balance=-1000))

    assert await history.anomalies() == []


async def test_voiding_the_invoice_ends_it(history: History):
    await history.see(billed("a", line(0, MONTH), subtotal=2000, total=2000, status="open"))

    outcome = await history.see(billed("a", line(0, MONTH), subtotal=2000, total=2000, status="void", voided_at=at(500), snapshot=2))

    (anomaly,) = await history.anomalies(MISMATCH)
    assert [finding.anomaly_id for finding in outcome.resolved] == [anomaly.anomaly_id]
    assert (anomaly.status, anomaly.resolved_at) == ("resolved", at(500))


async def test_one_invoice_is_one_anomaly_however_much_is_wrong_with_it(history: History):
    wrong = [line(0, MONTH, 1500), line(0, MONTH, 1500, item_id="si_2")]
    await history.see(subscription("1", 0, item(0, MONTH), item(0, MONTH, 2000, item_id="si_2")), billed("a", *wrong, total=1, subtotal=7))

    (anomaly,) = await history.anomalies(MISMATCH)
    assert (len(anomaly.evidence["numbers"]["lines"]), anomaly.amounts) == (2, {"usd": 1000})


async def test_currencies_and_accounts_are_told_apart(history: History):
    await history.see(
        billed("a", line(0, MONTH), subtotal=1500, total=1500, currency="jpy"),
        billed("b", line(0, MONTH), subtotal=1500, total=1500, currency="eur", account="acct_2"),
    )

    assert {(anomaly.subject, *anomaly.amounts) for anomaly in await history.anomalies()} == {("in_a", "jpy"), ("in_b acct_2", "eur")}


async def test_a_difference_below_the_threshold_is_none(history: History):
    history.thresholds = {MISMATCH: InvoiceMismatch(min_difference=100)}

    await history.see(
        billed("a", line(0, MONTH), subtotal=1099, total=1099),
        billed("b", line(0, MONTH), subtotal=1100, total=1100, subscription_id="sub_2"),
    )

    assert [anomaly.subject for anomaly in await history.anomalies()] == ["in_b"]
