"""The plain rules, each on a handful of deliveries; their defects are kept on purpose, since they are what is compared with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from billingwatch.detection.registry import DETECTORS
from billingwatch.lab.quality import rules
from billingwatch.lab.quality.plain import plain_alarms
from billingwatch.simulate.deliveries import Delivery

HOUR, DAY = 3600, 86_400
MONDAY = int(datetime(2026, 1, 5, tzinfo=UTC).timestamp())


def sent(at: int, event_type: str, *, created: int | None = None, previous: dict[str, Any] | None = None, **thing: Any) -> Delivery:
    data = {"object": thing, **({"previous_attributes": previous} if previous else {})}
    return Delivery(
        at=MONDAY + at,
        signed_at=MONDAY + at,
        event={"id": f"evt_{at}_{thing.get('id')}", "type": event_type, "created": MONDAY + (created or at), "data": data},
    )


def charge(
    at: int, charge_id: str, *, failed: bool = False, customer: str | None = "cus_1", amount: int = 1000, currency: str = "usd"
) -> Delivery:
    kind = "charge.failed" if failed else "charge.succeeded"
    return sent(at, kind, id=charge_id, customer=customer, amount=amount, currency=currency)


def said(rule: type[rules.Rule], *deliveries: Delivery, until: int = 0) -> list[tuple[str, int, int]]:
    alarms = plain_alarms(deliveries, until=MONDAY + until, rules=[rule])
    return [(alarm.subject, int(alarm.opened_at) - MONDAY, int(alarm.last_seen_at) - MONDAY) for alarm in alarms]


def test_15_percent_of_ten_charges_of_an_hour_are_too_many_failures():
    good = [charge(place, f"ch_{place}") for place in range(8)]

    assert said(rules.FailureRate, *good, charge(10, "ch_a", failed=True)) == []
    assert said(rules.FailureRate, *good, charge(10, "ch_a", failed=True), charge(11, "ch_b", failed=True)) == [("failures", 11, 11)]
    assert said(rules.FailureRate, *good, charge(10, "ch_a", failed=True), charge(HOUR + 9, "ch_b", failed=True)) == []


def test_every_retry_counts_as_a_failure():
    good = [charge(place, f"ch_{place}", customer=None) for place in range(10)]

    assert said(rules.FailureRate, *good, *(charge(20 + place, "ch_a", failed=True) for place in range(2))) == [("failures", 21, 21)]


def test_the_same_amount_within_five_minutes_is_paid_twice():
    assert said(rules.SameAmount, charge(0, "ch_a"), charge(300, "ch_b")) == [("cus_1", 300, 300)]
    assert said(rules.SameAmount, charge(0, "ch_a"), charge(301, "ch_b")) == []
    assert said(rules.SameAmount, charge(0, "ch_a"), charge(10, "ch_b", amount=999)) == []
    assert said(rules.SameAmount, charge(0, "ch_a"), charge(10, "ch_b", customer="cus_2")) == []
    assert said(rules.SameAmount, charge(0, "ch_a", customer=None), charge(10, "ch_b", customer=None)) == []


def test_an_invoice_is_its_charge_only_where_it_still_names_it():
    invoice = {"id": "in_1", "customer": "cus_1", "amount_paid": 1000, "currency": "usd"}

    assert said(rules.SameAmount, charge(0, "ch_a"), sent(3, "invoice.payment_succeeded", charge="ch_a", **invoice)) == []
    assert said(rules.SameAmount, charge(0, "ch_a"), sent(3, "invoice.payment_succeeded", **invoice)) == [("cus_1", 3, 3)]


def test_one_dispute_of_a_hundred_charges_is_too_many():
    dispute = sent(200, "charge.dispute.created", id="dp_1", status="warning_needs_response")

    assert said(rules.DisputeRate, *(charge(place, f"ch_{place}") for place in range(99)), dispute) == [("disputes", 200, 200)]
    assert said(rules.DisputeRate, *(charge(place, f"ch_{place}") for place in range(100)), dispute) == []
    assert said(rules.DisputeRate, *(charge(place, f"ch_{place}") for place in range(8)), dispute) == []


def test_a_negative_invoice_is_looked_for_where_stripe_does_not_show_it():
    assert said(rules.NegativePayment, sent(1, "invoice.paid", id="in_1", amount_paid=-1)) == [("in_1", 1, 1)]
    assert said(rules.NegativePayment, sent(1, "invoice.paid", id="in_1", amount_paid=0, total=-5000)) == []


def test_today_so_far_is_compared_with_whole_days():
    week = [charge(day * DAY + 12 * HOUR, f"ch_{day}") for day in range(8)]

    assert said(rules.TodayAgainstWeek, *week, until=8 * DAY - 1) == [(f"revenue of day {MONDAY // DAY + 7}", 7 * DAY, 7 * DAY + 12 * HOUR)]
    assert said(rules.TodayAgainstWeek, *week[:7], until=7 * DAY - 1) == []


def test_a_customer_lapses_33_days_after_the_last_payment_but_not_one_who_never_paid():
    price = {"recurring": {"interval": "month"}}
    active = [
        sent(at, "customer.subscription.created", id=f"sub_{at}", customer=customer, status="active", items={"data": [{"price": price}]})
        for at, customer in ((1, "cus_1"), (2, "cus_2"), (3, "cus_3"))
    ]
    paid = [sent(10 + number, "invoice.paid", id=f"in_{number}", customer=f"cus_{number}") for number in (1, 3)]
    gone = sent(DAY, "customer.subscription.deleted", id="sub_3", customer="cus_3")

    assert said(rules.CustomerLapsed, *active, *paid, gone, until=34 * DAY) == [("cus_1", 33 * DAY + HOUR, 34 * DAY)]


def test_an_event_is_late_after_five_minutes_even_if_stripe_tried_again():
    assert said(rules.Lag, charge(1, "ch_a"), sent(1000, "ping", created=700), sent(2000, "ping", created=1699)) == [("lag", 2000, 2000)]


def test_four_silent_hours_in_new_yorks_office_hours_are_too_long():
    # 17:00 UTC is noon there, 23:00 is six o'clock.
    assert said(rules.Silence, charge(13 * HOUR, "ch_a"), until=DAY - 1) == [("silence", 18 * HOUR, 22 * HOUR)]
    assert said(rules.Silence, charge(19 * HOUR, "ch_a"), until=DAY - 1) == []
    assert said(rules.Silence, until=DAY) == []


def test_a_price_that_is_gone_is_a_downgrade_even_if_a_higher_one_came():
    def changed(at: int, before: str, now: str) -> Delivery:
        items = [{"data": [{"price": {"id": price}}]} for price in (before, now)]
        return sent(at, "customer.subscription.updated", id="sub_1", items=items[1], previous={"items": items[0]})

    assert said(rules.PriceGone, changed(1, "price_9", "price_99")) == [("sub_1", 1, 1)]
    assert said(rules.PriceGone, changed(1, "price_9", "price_9")) == []
    assert said(rules.PriceGone, sent(1, "customer.subscription.updated", id="sub_1", previous={"status": "active"})) == []


def test_another_currency_than_a_customer_usually_pays_in_is_a_mismatch():
    usual = [charge(place, f"ch_{place}") for place in range(3)]

    assert said(rules.OtherCurrency, *usual, charge(9, "ch_a", currency="eur")) == [("cus_1", 9, 9)]
    assert said(rules.OtherCurrency, *usual[:2], charge(9, "ch_a", currency="eur")) == []
    assert said(rules.OtherCurrency, *usual, charge(9, "ch_a", currency="eur", customer="cus_2")) == []


def test_two_events_of_one_invoice_are_two_invoices_where_it_names_its_subscription():
    steps = [("invoice.created", 0), ("invoice.payment_succeeded", HOUR)]

    assert said(rules.TwoInvoices, *(sent(at, kind, id="in_1", subscription="sub_1") for kind, at in steps)) == [("sub_1", HOUR, HOUR)]
    assert said(rules.TwoInvoices, *(sent(at, kind, id="in_1", parent={}) for kind, at in steps)) == []
    assert said(rules.TwoInvoices, *(sent(at * 27, kind, id="in_1", subscription="sub_1") for kind, at in steps)) == []


@pytest.mark.parametrize(("pause", "alarms"), [(HOUR, 1), (HOUR + 1, 2)])
def test_what_a_rule_says_again_within_an_hour_is_one_alarm(pause: int, alarms: int):
    late = [sent(at, "ping", created=at - 400) for at in (1000, 1000 + pause)]

    assert len(said(rules.Lag, *late)) == alarms


def test_an_alarm_names_all_that_it_was_said_about():
    late = [sent(at, "ping", created=at - 400) for at in (1000, 1500)]

    (alarm,) = plain_alarms(late, until=MONDAY, rules=[rules.Lag])

    assert alarm.events == {late[0].event["id"], late[1].event["id"]}
    assert (alarm.detector, alarm.detected_at) == ("webhook_lag", MONDAY + 1000)


def test_every_detector_of_ours_that_a_plain_rule_stands_beside_is_named_alike():
    assert {"charge_failure_spike", "duplicate_charge", "fraud_spike", "negative_invoice"} <= DETECTORS.keys() & rules.RULED
