"""What an ordinary account lives through that is neither an incident nor an even flow."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime

import msgspec
import pytest

from billingwatch.simulate.objects.payers import Card
from billingwatch.simulate.profiles import PROFILES
from billingwatch.simulate.seasons import season
from billingwatch.simulate.stream import simulate

START = datetime(2026, 3, 2, tzinfo=UTC)
SHAPES = ("legacy", "current")
CARD_EVENTS = ("payment_method.automatically_updated", "payment_method.attached", "payment_method.detached")


def account(name, *, seed=5, days=56, start=START, shape="current", **changes):
    return simulate(seed=seed, start=start, days=days, profile=msgspec.structs.replace(PROFILES[name], shape=shape, **changes))


def of_type(events, *types):
    return [event for event in events if event["type"] in types]


def purchases(events):
    return [event["created"] for event in of_type(events, "payment_intent.created") if not event["data"]["object"]["setup_future_usage"]]


def test_a_card_is_good_until_its_month_is_over():
    card = Card(exp_month=12, exp_year=2026)
    midnight = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp())

    assert card.ends() == midnight
    assert not card.expired(midnight - 1)
    assert card.expired(midnight)
    assert Card(exp_month=2, exp_year=2028).ends() == datetime(2028, 3, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_network_replaces_cards_before_they_end(shape):
    events, _ = account("saas", shape=shape, customers=900)

    updated = of_type(events, "payment_method.automatically_updated")

    assert len(updated) > 10
    for event in updated:
        card, was = event["data"]["object"]["card"], event["data"]["previous_attributes"]["card"]
        assert card["exp_year"] > was["exp_year"]
        assert not Card(exp_month=card["exp_month"], exp_year=was["exp_year"]).expired(event["created"])
        assert event["data"]["object"]["customer"]


@pytest.mark.parametrize("shape", SHAPES)
def test_owners_replace_cards_on_the_customer_and_the_subscription_and_detach_the_old_one(shape):
    events, _ = account("saas", shape=shape, customers=900)
    changes = defaultdict(dict)
    for event in events:
        if event["data"].get("previous_attributes"):
            changes[event["type"]][event["data"]["object"].get("customer"), event["created"]] = event["data"]

    replaced = of_type(events, "payment_method.detached")

    assert len(replaced) > 3
    for event in replaced:
        customer, at = event["data"]["previous_attributes"]["customer"], event["created"]
        (attached,) = (
            other["data"]["object"]
            for other in of_type(events, "payment_method.attached")
            if other["data"]["object"]["customer"] == customer and other["created"] == at - 3
        )
        updated = next(
            other["data"]["object"]
            for other in of_type(events, "customer.updated")
            if other["data"]["object"]["id"] == customer and other["created"] == at - 2
        )
        assert event["data"]["object"]["customer"] is None
        assert attached["id"] == updated["invoice_settings"]["default_payment_method"] != event["data"]["object"]["id"]
        moved = changes["customer.subscription.updated"].get((customer, at - 1))
        if moved is not None:
            assert moved["object"]["default_payment_method"] == attached["id"]
            assert moved["previous_attributes"] == {"default_payment_method": event["data"]["object"]["id"]}
    assert any(
        (event["data"]["previous_attributes"]["customer"], event["created"] - 1) in changes["customer.subscription.updated"]
        for event in replaced
    )


def test_cards_that_nobody_replaces_are_refused_as_expired():
    events, _ = account("saas", days=90, customers=900, declines=0.0, wobbles_per_week=0.0)
    failed = [event["data"]["object"] for event in of_type(events, "charge.failed") if not event["data"]["object"]["metadata"]]
    first = [charge for charge in failed if charge["outcome"]["reason"] == "expired_card"]

    assert first
    for charge in first:
        card = charge["payment_method_details"]["card"]
        assert Card(exp_month=card["exp_month"], exp_year=card["exp_year"]).expired(charge["created"])


def test_cards_about_to_end_are_labelled_from_when_events_have_shown_them_until_they_are_replaced():
    cards, ended_early = 0, 0
    for seed in range(3):
        events, labels = account(
            "saas", seed=seed, days=220, customers=200, sales_per_month=0.0, purchases_per_day=0.0, habits_per_week=0.0
        )
        shown: dict[str, int] = {}
        for event in events:
            shown.setdefault(event["data"]["object"]["id"], event["created"])
        replaced = {
            event["data"]["object"]["id"]: event["created"]
            for event in of_type(events, "payment_method.automatically_updated", "payment_method.detached")
        }
        for label in labels:
            if label.incident != "card_expiry":
                continue
            cards += 1
            card = label.object_ids[0]
            assert label.natural
            assert shown[card] <= label.started_at < label.ended_at <= label.started_at + 30 * 86_400
            if card in replaced and replaced[card] < label.started_at + 30 * 86_400:
                ended_early += 1
                assert label.ended_at <= replaced[card]
    assert cards > 5
    assert ended_early


def test_accounts_of_one_kind_grow_and_shrink():
    changes = []
    for seed in range(8):
        bought = purchases(account("shop", seed=seed, sales_per_month=0.0)[0])
        middle = START.timestamp() + 28 * 86_400
        changes.append(sum(at >= middle for at in bought) / sum(at < middle for at in bought) - 1)

    assert min(changes) < 0 < max(changes)
    assert all(abs(change) < 0.35 for change in changes)


def test_a_sale_day_sells_about_twice_as_much():
    with_sales = Counter(at // 86_400 for at in purchases(account("shop", sales_per_month=2.0)[0]))
    without = Counter(at // 86_400 for at in purchases(account("shop", sales_per_month=0.0)[0]))

    sales = [day for day in with_sales if with_sales[day] > 1.5 * without[day]]

    assert 1 <= len(sales) <= 8


def test_holidays_are_quiet_in_business_and_month_ends_busy():
    may_day, ordinary = int(datetime(2026, 5, 1, tzinfo=UTC).timestamp()), int(datetime(2026, 5, 6, tzinfo=UTC).timestamp())
    last = int(datetime(2026, 5, 28, tzinfo=UTC).timestamp())

    assert (season(may_day, 0.15, 2.2), season(ordinary, 0.15, 2.2), season(last, 0.15, 2.2)) == (0.15, 1.0, 2.2)
    by_day = Counter()
    for seed in range(12):
        by_day += Counter(
            datetime.fromtimestamp(at, UTC).day
            for at in purchases(account("b2b", seed=seed, days=28, start=datetime(2026, 9, 7, tzinfo=UTC))[0])
        )
    assert sum(by_day[day] for day in (28, 29, 30)) > 1.5 * sum(by_day[day] for day in (21, 22, 23))


def test_issuers_wobble_without_an_incident():
    steady, _ = account("volume", days=21, wobbles_per_week=0.0)
    wobbling, labels = account("volume", days=21, wobbles_per_week=5.0)

    failed = [
        len(of_type(events, "charge.failed")) / len(of_type(events, "charge.failed", "charge.succeeded")) for events in (steady, wobbling)
    ]

    assert failed[0] < failed[1] < failed[0] + 0.01
    assert not [label for label in labels if not label.natural]


@pytest.mark.parametrize("name", PROFILES)
def test_eight_weeks_of_any_kind_of_business_can_be_measured(name):
    events, _ = account(name)

    assert len(events) < 80_000


@pytest.mark.parametrize("shape", SHAPES)
def test_a_trial_costs_nothing_and_becomes_a_subscription_or_ends(shape):
    events, _ = account("saas", shape=shape, customers=600, trials=1.0)
    started = [event["data"]["object"] for event in of_type(events, "customer.subscription.created")]
    first = {event["data"]["object"]["customer"]: event["data"]["object"] for event in reversed(of_type(events, "invoice.created"))}
    early = [subscription for subscription in started if subscription["created"] < START.timestamp() + 30 * 86_400]

    became = Counter()
    for subscription in early:
        assert subscription["status"] == "trialing"
        assert subscription["trial_end"] - subscription["trial_start"] == 14 * 86_400
        assert first[subscription["customer"]]["total"] == 0
        after = next(
            event
            for event in events
            if event["data"]["object"]["id"] == subscription["id"] and event["created"] == subscription["trial_end"]
        )
        became[after["data"]["object"]["status"]] += 1
        assert after["type"] == "customer.subscription.deleted" or after["data"]["previous_attributes"]["status"] == "trialing"
    assert became["active"] > became["canceled"] > 0
    assert set(became) == {"active", "canceled"}
    assert of_type(events, "customer.subscription.trial_will_end")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_paused_subscription_goes_on_with_void_invoices(shape):
    events, _ = account("saas", shape=shape, pauses=0.3, declines=0.0)
    paused_until = {}
    for event in of_type(events, "customer.subscription.updated"):
        pause = event["data"]["object"]["pause_collection"]
        if pause is not None and event["data"]["previous_attributes"].get("pause_collection", 0) is None:
            paused_until[event["data"]["object"]["latest_invoice"], event["data"]["object"]["customer"]] = pause["resumes_at"]
    voided = [event["data"]["object"] for event in of_type(events, "invoice.voided")]
    resumed = [
        event for event in of_type(events, "customer.subscription.updated") if event["data"]["previous_attributes"].get("pause_collection")
    ]

    assert len(paused_until) > 30
    assert len(voided) > 10
    assert resumed
    assert all(invoice["billing_reason"] == "subscription_cycle" and invoice["attempt_count"] == 0 for invoice in voided)
    assert {invoice["customer"] for invoice in voided} <= {customer for _, customer in paused_until}
    assert all(event["data"]["object"]["pause_collection"] is None for event in resumed)
    assert not {invoice["id"] for invoice in voided} & {event["data"]["object"]["id"] for event in of_type(events, "invoice.paid")}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sent_invoice_is_paid_by_transfer_in_time_or_overdue(shape):
    events, labels = account("b2b", shape=shape, days=100, invoiced=1.0)
    sent = {event["data"]["object"]["id"]: event["data"]["object"] for event in of_type(events, "invoice.sent")}
    paid = {
        event["data"]["object"]["id"]: event["data"]["object"]
        for event in of_type(events, "invoice.paid")
        if event["data"]["object"]["id"] in sent
    }
    overdue = {event["data"]["object"]["id"] for event in of_type(events, "invoice.overdue")}

    assert len(sent) > 100
    assert len(paid) > 0.5 * len(sent)
    assert 0 < len(overdue) < len(sent) / 2
    for invoice in sent.values():
        assert (invoice["status"], invoice["collection_method"], invoice["next_payment_attempt"]) == ("open", "send_invoice", None)
        assert 30 * 86_400 <= invoice["due_date"] - invoice["created"] < 31 * 86_400
    for invoice in paid.values():
        assert (invoice["attempt_count"], invoice["attempted"]) == (0, False)
        assert invoice["amount_paid"] == invoice["amount_due"] > 0
        assert invoice["paid_out_of_band"] if shape == "legacy" else invoice["amount_paid_off_stripe"] == invoice["amount_paid"]
        assert (invoice["status_transitions"]["paid_at"] > invoice["due_date"]) == (invoice["id"] in overdue)
    assert not [label for label in labels if label.incident == "payment_recovery"]
