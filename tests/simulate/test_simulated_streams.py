from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime
from io import BytesIO
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billingwatch.errors import InputInvalid
from billingwatch.simulate.deliveries import deliver
from billingwatch.simulate.objects.shapes import API_VERSIONS
from billingwatch.simulate.profiles import PROFILES
from billingwatch.simulate.seasons import intensity, months_later
from billingwatch.simulate.stream import body, simulate, write_events
from billingwatch.simulate.world import difference

START = datetime(2026, 8, 17, tzinfo=UTC)
DUPLICATE_WITHIN = 300  # seconds
SHAPES = tuple(API_VERSIONS)


def stream(name="saas", *, seed=7, days=30.0, shape="current", **changes):
    profile = msgspec.structs.replace(PROFILES[name], shape=shape, **changes)
    events, _ = simulate(seed=seed, start=START, days=days, profile=profile)
    return events


@pytest.fixture(scope="module", params=SHAPES)
def saas(request):
    return stream(shape=request.param)


def of_type(events, *types):
    return [event for event in events if event["type"] in types]


def objects(events, *types):
    return [event["data"]["object"] for event in of_type(events, *types)]


def encoded(events):
    file = BytesIO()
    write_events(events, file)
    return file.getvalue()


def test_the_same_seed_gives_the_same_bytes():
    assert encoded(stream("tiny")) == encoded(stream("tiny"))


def test_another_seed_gives_another_stream():
    assert not {event["id"] for event in stream("tiny", seed=1)} & {event["id"] for event in stream("tiny", seed=2)}


def test_a_month_of_a_saas_business_is_thousands_of_events_in_order(saas):
    created = [event["created"] for event in saas]

    assert len(saas) > 3000
    assert created == sorted(created)
    assert START.timestamp() <= created[0] <= created[-1] < START.timestamp() + 30 * 86_400
    assert len({event["id"] for event in saas}) == len(saas)


def test_every_event_is_complete(saas):
    for event in saas:
        assert {"id", "object", "api_version", "created", "data", "livemode", "pending_webhooks", "request", "type"} == event.keys()
        assert event["data"]["object"]["id"]
        assert event["api_version"] in API_VERSIONS.values()


def test_mode_and_connected_account_are_told_by_every_event():
    events, _ = simulate(seed=1, start=START, days=3, profile=PROFILES["shop"], livemode=False, account="acct_1")

    assert {event["account"] for event in events} == {"acct_1"}
    assert {event["livemode"] for event in events} == {False}
    assert not any(event["data"]["object"].get("livemode") for event in events)


def test_every_kind_of_event_occurs_in_its_shape(saas):
    types = {event["type"] for event in saas}

    assert types >= {
        "charge.failed",
        "charge.refunded",
        "charge.succeeded",
        "customer.created",
        "customer.subscription.created",
        "customer.subscription.deleted",
        "customer.subscription.updated",
        "invoice.created",
        "invoice.finalized",
        "invoice.paid",
        "invoice.payment_failed",
        "invoice.payment_succeeded",
        "payment_intent.created",
        "payment_intent.payment_failed",
        "payment_intent.succeeded",
        "payment_method.attached",
        "refund.created",
    }
    assert ("invoice_payment.paid" in types) == (saas[0]["api_version"] == API_VERSIONS["current"])


def test_a_paid_invoice_can_be_joined_with_its_charge(saas):
    charges = {charge["payment_intent"]: charge for charge in objects(saas, "charge.succeeded")}
    paid = [invoice for invoice in objects(saas, "invoice.paid") if invoice["amount_paid"]]
    if saas[0]["api_version"] == API_VERSIONS["current"]:
        intents = {payment["invoice"]: payment["payment"]["payment_intent"] for payment in objects(saas, "invoice_payment.paid")}
    else:
        intents = {invoice["id"]: invoice["payment_intent"] for invoice in paid}

    for invoice in paid:
        charge = charges[intents[invoice["id"]]]
        assert (charge["amount"], charge["currency"], charge["customer"]) == (
            invoice["amount_due"],
            invoice["currency"],
            invoice["customer"],
        )
        assert charge.get("invoice") in {invoice["id"], None}


def test_about_one_attempt_in_twenty_five_fails_for_many_reasons():
    events = stream("volume", days=2)
    failed, succeeded = objects(events, "charge.failed"), objects(events, "charge.succeeded")

    # Second tries fail more often than first ones.
    assert 0.03 < len(failed) / (len(failed) + len(succeeded)) < 0.08
    assert len({charge["outcome"]["reason"] for charge in failed}) >= 5


def test_failed_renewals_are_tried_again_for_days_on_the_same_intent_and_mostly_recover():
    events = stream(customers=400, declines=0.25, month_start=0.0)
    attempts = defaultdict(list)
    for event in of_type(events, "charge.failed", "charge.succeeded"):
        if event["data"]["object"]["description"] == "Subscription update":
            attempts[event["data"]["object"]["payment_intent"]].append(event)
    early = START.timestamp() + 20 * 86_400
    retried = [tries for tries in attempts.values() if tries[0]["type"] == "charge.failed" and tries[0]["created"] < early]

    assert len(retried) > 30
    days = {round((tries[1]["created"] - tries[0]["created"]) / 86_400, 2) for tries in retried if len(tries) > 1}
    assert days == {1.0}
    assert sum(tries[-1]["type"] == "charge.succeeded" for tries in retried) / len(retried) > 0.75
    counts = [invoice["attempt_count"] for invoice in objects(events, "invoice.payment_failed")]
    assert set(counts) == {1, 2, 3, 4}
    assert any(tries[-1]["type"] == "charge.failed" for tries in retried)
    assert objects(events, "invoice.marked_uncollectible")


def test_a_renewal_tells_its_old_period(saas):
    renewals = 0
    for event in of_type(saas, "customer.subscription.updated"):
        old, now = event["data"]["previous_attributes"], event["data"]["object"]
        if event["api_version"] == API_VERSIONS["legacy"]:
            renewed = "current_period_end" in old
            assert not renewed or (old["current_period_end"] == now["current_period_start"] and "items" not in old)
        else:
            (item,) = now["items"]["data"]
            (item_before,) = old.get("items", now["items"])["data"]
            renewed = item_before["current_period_end"] == item["current_period_start"]
            assert "current_period_end" not in old
            assert not renewed or item_before["price"] == item["price"]
        renewals += renewed

    assert renewals > 150


def test_the_first_of_the_month_is_busy():
    days = Counter(datetime.fromtimestamp(invoice["created"], UTC).day for invoice in objects(stream(), "invoice.created"))

    assert days[1] > 5 * (sum(days.values()) - days[1]) / 29


def test_working_days_differ_from_weekends_and_noon_from_night():
    bought = [
        datetime.fromtimestamp(charge["created"], UTC)
        for charge in objects(stream("b2b", purchases_per_day=60, subscribed=0.0), "charge.succeeded")
    ]
    by_weekday = Counter(when.weekday() for when in bought)
    by_hour = Counter(when.hour for when in bought)

    assert by_weekday[5] + by_weekday[6] < 0.15 * len(bought)
    assert by_hour[15] > 4 * by_hour[3]
    assert sum(intensity(int(START.timestamp()) + hour * 3600, 0.3) for hour in range(168)) / 168 == pytest.approx(1)


def test_several_currencies_never_meet_on_one_customer():
    currencies = defaultdict(set)
    for thing in objects(stream("marketplace"), "charge.succeeded", "charge.failed", "invoice.created"):
        currencies[thing["customer"]].add(thing["currency"])
    guests = currencies.pop(None)

    assert guests == {"usd", "eur", "gbp", "jpy"}
    assert all(len(used) == 1 for used in currencies.values())


def test_refunds_add_up_to_what_their_charge_says(saas):
    given = Counter()
    for event in of_type(saas, "refund.created", "charge.refunded"):
        thing = event["data"]["object"]
        if event["type"] == "refund.created":
            given[thing["charge"]] += thing["amount"]
        else:
            assert thing["amount_refunded"] == given[thing["id"]] <= thing["amount"]
            assert event["data"]["previous_attributes"]["amount_refunded"] < thing["amount_refunded"]

    assert given


def test_a_charge_can_be_refunded_in_parts():
    parts = Counter(refund["charge"] for refund in objects(stream("shop", refunds=0.2), "refund.created"))

    assert max(parts.values()) == 2


def test_downgrades_make_negative_invoices_that_are_right():
    events = stream(changes=0.6)
    negative = [
        invoice
        for invoice in objects(events, "invoice.finalized")
        if invoice["total"] < 0 and invoice["billing_reason"] == "subscription_update"
    ]

    assert negative
    for invoice in negative:
        assert all(line["parent"]["invoice_item_details"]["proration"] for line in invoice["lines"]["data"])
        assert (invoice["amount_due"], invoice["status"]) == (0, "paid")
        assert invoice["ending_balance"] == invoice["starting_balance"] + invoice["total"]


def test_a_renewal_below_zero_is_explained_by_its_prorations():
    for invoice in objects(stream(changes=0.6), "invoice.finalized"):
        if invoice["billing_reason"] == "subscription_cycle" and invoice["total"] < 0:
            lasting = [line for line in invoice["lines"]["data"] if line["parent"]["type"] == "subscription_item_details"]
            assert sum(line["amount"] for line in lasting) > 0
            assert len(lasting) < len(invoice["lines"]["data"])


def test_two_subscriptions_of_one_customer_renew_within_a_minute(saas):
    renewals = defaultdict(list)
    for charge in objects(saas, "charge.succeeded"):
        if charge["description"] == "Subscription update":
            renewals[charge["customer"], charge["amount"]].append(charge["created"])

    assert any(0 < later - earlier < 60 for times in renewals.values() for earlier, later in pairwise(times))


def test_seats_bought_minutes_apart_name_different_orders():
    bought = defaultdict(list)
    for charge in objects(stream(habits_per_week=20), "charge.succeeded"):
        if "order_id" in charge["metadata"]:
            bought[charge["customer"], charge["amount"]].append((charge["created"], charge["metadata"]["order_id"]))
    near = [(one, two) for seats in bought.values() for (t, one), (u, two) in pairwise(seats) if u - t < DUPLICATE_WITHIN]

    assert len(near) > 5
    assert all(one != two for one, two in near)


@pytest.mark.parametrize("name", [name for name in PROFILES if name != "volume"])
def test_ordinary_traffic_holds_nothing_that_a_label_should_tell(name):
    events = stream(name, seed=11)
    seen = {}
    for charge in objects(events, "charge.succeeded"):
        if charge["description"].startswith("Subscription"):
            continue
        payer = charge["customer"] or charge["payment_method_details"]["card"]["fingerprint"]
        key = (payer, charge["amount"], charge["currency"], charge["metadata"].get("order_id"))
        assert charge["created"] - seen.get(key, 0) > DUPLICATE_WITHIN
        seen[key] = charge["created"]

    warnings = [event["created"] for event in of_type(events, "radar.early_fraud_warning.created")]
    assert all(fourth - first > 86_400 for first, fourth in zip(warnings, warnings[3:], strict=False))


def test_disputes_are_rare_and_some_are_of_charges_from_before():
    events = stream("shop", days=25, disputes=0.03)
    known = {charge["id"] for charge in objects(events, "charge.succeeded")}
    disputes = objects(events, "charge.dispute.created")

    assert any(dispute["charge"] not in known for dispute in disputes)
    assert any(dispute["charge"] in known for dispute in disputes)
    assert {dispute["status"] for dispute in disputes} == {"needs_response", "warning_needs_response"}


def test_deliveries_are_out_of_order_late_and_sometimes_double():
    events = stream("shop", days=10)

    deliveries = deliver(events, seed=1)

    assert {delivery.event["id"] for delivery in deliveries} == {event["id"] for event in events}
    assert len(events) < len(deliveries) < 1.05 * len(events)
    assert [delivery.at for delivery in deliveries] == sorted(delivery.at for delivery in deliveries)
    assert all(delivery.at > delivery.event["created"] for delivery in deliveries)
    order = [delivery.event["created"] for delivery in deliveries]
    assert order != sorted(order)
    assert deliveries == deliver(events, seed=1)


def test_a_file_holds_one_event_per_line_and_a_body_the_same_event():
    events = stream("tiny", days=5)

    lines = encoded(events).splitlines()

    assert [json.loads(line) for line in lines] == events
    assert [json.loads(body(event)) for event in events] == events
    assert body(events[0]).startswith(b'{\n  "id": "evt_')


def test_months_keep_their_anchor():
    january = int(datetime(2028, 1, 31, 9, tzinfo=UTC).timestamp())

    days = [datetime.fromtimestamp(months_later(january, months, 31), UTC).strftime("%m-%d %H") for months in range(4)]

    assert days == ["01-31 09", "02-29 09", "03-31 09", "04-30 09"]


def test_previous_attributes_hold_old_values_only_where_they_changed():
    before = {"a": 1, "b": {"c": 1, "d": 2}, "e": [1], "f": 0}
    after = {"a": 1, "b": {"c": 1, "d": 3}, "e": [2], "f": 0}

    assert difference(before, after) == {"b": {"d": 2}, "e": [1]}


def test_a_start_without_time_zone_is_refused():
    with pytest.raises(InputInvalid, match="time zone"):
        simulate(seed=1, start=datetime(2026, 1, 1), days=1, profile=PROFILES["tiny"])  # noqa: DTZ001 - that is the point


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32), name=st.sampled_from(["tiny", "saas", "marketplace"]), days=st.floats(0.1, 9), shape=st.sampled_from(SHAPES)
)
def test_whatever_the_seed_the_books_are_right(seed, name, days, shape):
    events = stream(name, seed=seed, days=days, shape=shape, changes=0.5, declines=0.2, refunds=0.3, customers=60)

    assert len({event["id"] for event in events}) == len(events)
    assert [event["created"] for event in events] == sorted(event["created"] for event in events)
    for event in events:
        thing = event["data"]["object"]
        assert thing.get("created", 0) <= event["created"]
        match thing["object"]:
            case "charge":
                assert 0 <= thing["amount_refunded"] <= thing["amount"]
                assert thing["refunded"] == (thing["amount_refunded"] == thing["amount"])
            case "invoice":
                lines = thing["lines"]["data"]
                taxes = [tax for line in lines for tax in line["tax_amounts" if shape == "legacy" else "taxes"]]
                off = sum(amount["amount"] for line in lines for amount in line["discount_amounts"])
                assert thing["subtotal"] == sum(line["amount"] for line in lines)
                assert thing["total"] == thing["subtotal"] - off + sum(tax["amount"] for tax in taxes)
                assert (
                    thing["amount_due"]
                    == thing["amount_paid"] + thing["amount_remaining"]
                    == max(0, thing["total"] + thing["starting_balance"])
                )
            case "payment_intent":
                assert thing["amount_received"] == (thing["amount"] if thing["status"] == "succeeded" else 0)
            case _:
                pass
