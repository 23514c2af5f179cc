"""Small histories, each after a public bug report: the rows and anomalies that they give by webhook and by replay alike."""

from __future__ import annotations

from datetime import UTC, datetime

from .conftest import Outcome


def revenue(outcome: Outcome) -> list[tuple[str | None, str, int, int, int]]:
    return [(row["account"], row["currency"], row["gross"], row["refunded"], row["net"]) for row in outcome.views["revenue_daily"]]


async def test_partial_capture_since_basil_is_no_refund(outcome):
    assert revenue(await outcome("partial_capture_basil")) == [(None, "usd", 20300, 0, 20300)]


async def test_large_refund_of_captured_charge_is_found(outcome):
    assert [one for one, _ in (await outcome("large_refund_true")).found()] == ["large_refund"]


async def test_order_charged_twice_is_critical_duplicate(outcome):
    ended = await outcome("woo_renewal_charged_twice")

    assert ended.found() == [("duplicate_charge", "critical")]
    assert ended.anomalies()[0]["amounts"] == {"usd": 2900}


async def test_sepa_dispute_lost_at_once_leaves_nothing_open(outcome):
    ended = await outcome("sepa_dispute_lost_at_once")

    assert ended.views["disputes_open"] == []
    assert [row["status"] for row in ended.anomalies(closed=True)] == ["resolved"]


async def test_inquiry_that_becomes_chargeback_is_one_open_dispute(outcome):
    (row,) = (await outcome("inquiry_to_chargeback")).views["disputes_open"]

    assert (row["kind"], row["evidence_due_at"]) == ("dispute", datetime(2026, 12, 2, 10, tzinfo=UTC))
    assert not row["needs_response"]


async def test_first_renewal_after_trial_invoice_is_no_anomaly(outcome):
    assert (await outcome("trial_then_cycle")).found() == []


async def test_renewal_with_greater_credit_is_no_anomaly(outcome):
    assert (await outcome("renewal_with_greater_credit")).found() == []


async def test_credit_notes_before_and_after_payment_leave_revenue_right(outcome):
    ended = await outcome("credit_notes")

    assert revenue(ended) == [(None, "usd", 10000, 2500, 7500)]
    assert [row["status"] for row in ended.tables["invoices"]] == ["paid", "paid"]


async def test_plan_downgrade_of_2015_is_found(outcome):
    ended = await outcome("plan_2015_downgrade")

    assert [one for one, _ in ended.found()] == ["plan_downgrade"]
    assert [row["mrr"] for row in ended.tables["subscriptions"]] == [2000]


async def test_currency_shown_to_buyer_is_no_mismatch(outcome):
    ended = await outcome("adaptive_pricing")

    assert ended.found() == []
    assert {row["currency"] for row in ended.tables["charges"]} == {"usd"}


async def test_returned_bank_debit_is_no_revenue(outcome):
    ended = await outcome("ach_succeeds_then_returned")

    assert [row["status"] for row in ended.tables["charges"]] == ["failed"]
    assert revenue(ended) == []


async def test_events_of_every_kind_are_stored(outcome):
    assert len((await outcome("events_of_every_kind")).tables["events"]) == 17


async def test_uncaptured_rest_of_old_api_is_no_refund(outcome):
    assert revenue(await outcome("partial_capture_legacy")) == [(None, "usd", 20300, 0, 20300)]


async def test_price_in_other_currency_leaves_mrr_unknown(outcome):
    (row,) = (await outcome("multi_currency_price")).tables["subscriptions"]

    assert (row["currency"], row["mrr"]) == ("eur", None)
    assert [item["unit_amount"] for item in row["items"]] == [None]


async def test_two_invoices_of_one_amount_are_no_duplicate(outcome):
    assert (await outcome("two_invoices_one_amount_basil")).found() == []


async def test_written_off_sent_invoice_is_payment_recovery(outcome):
    ended = await outcome("written_off_sent_invoice")

    assert [one for one, _ in ended.found()] == ["payment_recovery"]
    assert ended.anomalies()[0]["amounts"] == {"usd": 50000}
    assert "was written off after no attempt" in ended.anomalies()[0]["summary"]


async def test_due_date_of_zero_is_no_date(outcome):
    ended = await outcome("sepa_dispute_due_zero")

    assert [row["evidence_due_at"] for row in ended.tables["disputes"]] == [None]


async def test_invoice_whose_payment_is_detached_is_open_again(outcome):
    (row,) = (await outcome("invoice_payment_detached")).tables["invoices"]

    assert (row["status"], row["amount_remaining"]) == ("open", 30000)


async def test_user_id_of_2016_names_the_connected_account(outcome):
    ended = await outcome("connect_user_id")

    assert sorted(revenue(ended), key=str) == [("acct_alpha", "usd", 7000, 0, 7000), (None, "usd", 5000, 0, 5000)]
    assert {row["event_id"]: row["account"] for row in ended.tables["events"]}["evt_connect_user_id_002"] == "acct_alpha"


async def test_exhausted_retries_of_2018_are_payment_recovery(outcome):
    ended = await outcome("retries_exhausted_2018")

    assert [row["collection_method"] for row in ended.tables["invoices"]] == ["charge_automatically"]
    assert [one for one, _ in ended.found()] == ["payment_recovery"]


async def test_cancelled_hold_of_old_api_is_no_refund(outcome):
    ended = await outcome("hold_released_legacy")

    assert ended.found() == []
    assert [row["released"] for row in ended.tables["refunds"]] == [True]


async def test_failed_refund_counts_as_revenue_again(outcome):
    assert revenue(await outcome("refund_failed")) == [(None, "usd", 10000, 0, 10000)]


async def test_cart_of_two_sellers_is_no_duplicate(outcome):
    assert (await outcome("cart_of_two_sellers")).found() == []


async def test_equal_subscriptions_within_seconds_are_duplicate(outcome):
    ended = await outcome("subscribed_twice")
    (anomaly,) = [row for row in ended.anomalies() if row["detector"] != "silent_lapse"]  # the stream ends, the subscriptions do not

    assert (anomaly["detector"], anomaly["amounts"]) == ("duplicate_charge", {"usd": 2900})
    assert anomaly["evidence"]["objects"]["subscriptions"] == ["sub_t1", "sub_t2"]
    assert "sub_t1 and sub_t2" in anomaly["summary"]
