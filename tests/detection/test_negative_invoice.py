from __future__ import annotations

import pytest

from billingwatch.detection.detectors.negative_invoice import NegativeInvoice

from .history import NOON, History, at, invoice


async def test_a_finalized_invoice_with_a_negative_total_is_an_anomaly(history: History):
    await history.see(invoice("a", 0, total=-5000, number="INV-7", customer_id="cus_1"))

    anomaly = await history.anomaly()
    assert (anomaly.detector, anomaly.subject, anomaly.severity, anomaly.status) == ("negative_invoice", "in_a", "warning", "open")
    assert anomaly.amounts == {"usd": 5000}
    assert anomaly.summary == "Invoice INV-7 of cus_1 was finalized at -50.00 USD"
    assert (anomaly.opened_at, anomaly.last_seen_at) == (NOON, NOON)


async def test_a_draft_is_judged_once_it_is_final(history: History):
    await history.see(invoice("a", 0, total=-5000, status="draft", finalized_at=None))
    as_draft = await history.anomalies()

    await history.see(invoice("a", 0, total=-5000, status="open", snapshot=2))
    await history.see(invoice("a", 0, total=-5000, status="paid", snapshot=3))

    assert as_draft == []
    assert (await history.anomaly()).evidence["numbers"]["status"] == "paid"


async def test_a_draft_that_was_mended_before_it_was_final_is_none(history: History):
    await history.see(invoice("a", 0, total=-5000, status="draft", finalized_at=None))
    await history.see(invoice("a", 0, total=100, status="open", snapshot=2))

    assert await history.anomalies() == []


@pytest.mark.parametrize("reason", ["subscription_cycle", "manual", "subscription_create", None])
async def test_no_billing_reason_but_a_subscription_update_explains_a_credit(history: History, reason: str | None):
    await history.see(
        invoice("a", 0, total=-5000, billing_reason=reason), invoice("b", 0, total=-5000, billing_reason="subscription_update")
    )

    assert (await history.anomaly()).subject == "in_a"


async def test_a_renewal_that_only_prorations_made_negative_is_a_downgrade(history: History):
    proration = {"amount": -4500, "proration": True}
    await history.see(
        invoice("a", 0, total=-3500, lines=[{"amount": 1000, "proration": False}, proration]),
        invoice("b", 0, total=-5500, lines=[{"amount": -1000, "proration": False}, proration]),
    )

    assert (await history.anomaly()).subject == "in_b"


@pytest.mark.parametrize(("kept", "credit", "tax", "found"), [(100, -1000, -171, 0), (0, -1000, -190, 0), (-100, -1000, -209, 1)])
async def test_tax_on_the_credit_of_a_downgrade_is_part_of_it(history: History, kept: int, credit: int, tax: int, found: int):
    lines = [{"amount": kept, "proration": False}, {"amount": credit, "proration": True}]
    await history.see(invoice("a", 0, subtotal=kept + credit, total=kept + credit + tax, tax_amount=tax, lines=lines))

    assert len(await history.anomalies("negative_invoice")) == found


@pytest.mark.parametrize(("listed_all", "found"), [(False, 0), (True, 1)])
async def test_of_lines_that_were_cut_short_prorations_may_be_unseen(history: History, listed_all: bool, found: int):
    lines = [{"amount": -100, "proration": True, "listed_all": listed_all}]
    await history.see(invoice("a", 0, total=-5000, lines=lines))

    assert len(await history.anomalies("negative_invoice")) == found


async def test_a_negative_total_that_no_line_explains_is_one(history: History):
    await history.see(invoice("a", 0, total=-5000, subtotal=1000, lines=[{"amount": 1000, "proration": False}]))

    assert [anomaly.subject for anomaly in await history.anomalies("negative_invoice")] == ["in_a"]


@pytest.mark.parametrize("fields", [{"total": 0}, {"total": 1000, "amount_due": 0, "starting_balance": -1000}])
async def test_coupons_and_balances_that_leave_nothing_due_are_no_credit(history: History, fields: dict[str, int]):
    await history.see(invoice("a", 0, **fields))

    assert await history.anomalies() == []


async def test_voiding_the_invoice_ends_it(history: History):
    await history.see(invoice("a", 0, total=-5000, status="open"))

    outcome = await history.see(invoice("a", 0, total=-5000, status="void", voided_at=at(500), snapshot=2, updated=501))

    anomaly = await history.anomaly()
    assert [finding.anomaly_id for finding in outcome.resolved] == [anomaly.anomaly_id]
    assert (anomaly.status, anomaly.resolution, anomaly.resolved_at) == ("resolved", "automatic", at(500))


async def test_an_invoice_that_was_void_when_first_seen_is_recorded_as_over(history: History):
    outcome = await history.see(invoice("a", 0, total=-5000, status="void", updated=501))

    assert [finding.status for finding in outcome.opened] == ["resolved"]
    assert (await history.anomaly()).resolved_at == at(501)


async def test_each_invoice_is_an_anomaly_of_its_own_in_its_currency(history: History):
    await history.see(invoice("a", 0, total=-500, currency="jpy"), invoice("b", 0, total=-5000, currency="eur"))

    assert [anomaly.amounts for anomaly in await history.anomalies()] in ([{"jpy": 500}, {"eur": 5000}], [{"eur": 5000}, {"jpy": 500}])


async def test_a_credit_below_the_threshold_is_none(history: History):
    history.thresholds = {"negative_invoice": NegativeInvoice(min_amount=100)}

    await history.see(invoice("a", 0, total=-99), invoice("b", 0, total=-100))

    assert (await history.anomaly()).subject == "in_b"
