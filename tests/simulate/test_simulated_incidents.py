from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from io import BytesIO

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billingwatch.errors import InputInvalid
from billingwatch.simulate.incidents.registry import INCIDENTS
from billingwatch.simulate.incidents.scenes import Incident
from billingwatch.simulate.profiles import PROFILES
from billingwatch.simulate.stream import simulate, write_labels

SHOWN_BY_TIME = {"card_expiry", "revenue_drop", "silent_lapse"}  # what happens is that nothing happens
SHAPES = ("legacy", "current")
START = datetime(2026, 8, 17, tzinfo=UTC)
AT = datetime(2026, 8, 25, 14, tzinfo=UTC)


def stage(name, *, profile="saas", strength=0.7, seed=3, days=14, at=AT, shape="current"):
    events, labels = simulate(
        seed=seed,
        start=START,
        days=days,
        profile=msgspec.structs.replace(PROFILES[profile], shape=shape),
        incidents=[Incident(name=name, at=at, strength=strength)],
    )
    (label,) = [label for label in labels if not label.natural]
    named = set(label.event_ids)
    return events, label, [event["data"]["object"] for event in events if event["id"] in named]


@pytest.mark.parametrize("profile", ["tiny", "saas", "shop", "marketplace"])
def test_labels_name_events_that_exist_at_the_time_they_say(profile):
    events, labels = simulate(seed=5, start=START, days=20, profile=PROFILES[profile], incidents=list(INCIDENTS))
    created = {event["id"]: event["created"] for event in events}

    wished = [label for label in labels if not label.natural]
    assert Counter(label.variant for label in wished) == dict.fromkeys(INCIDENTS, 1)
    for label in wished:
        assert label.incident == INCIDENTS[label.variant].detector
        assert START.timestamp() + 0.6 * 20 * 86_400 <= label.started_at <= label.ended_at < START.timestamp() + 20 * 86_400
        times = [created[event_id] for event_id in label.event_ids]
        if label.incident in SHOWN_BY_TIME:
            assert all(time <= label.ended_at for time in times)
        else:
            assert (label.started_at, label.ended_at) == (min(times), max(times))
        assert label.object_ids or label.incident == "revenue_drop"


@pytest.mark.parametrize("name", [name for name, kind in INCIDENTS.items() if not kind.takes])
def test_an_incident_leaves_the_rest_of_the_stream_as_it_was(name):
    quiet, _ = simulate(seed=3, start=START, days=14, profile=PROFILES["saas"])

    events, _, _ = stage(name)

    loud = {event["id"]: event for event in events}
    assert all(loud.get(event["id"]) == event for event in quiet)


def test_an_outage_fails_payments_that_would_have_succeeded():
    quiet, _ = simulate(seed=3, start=START, days=14, profile=PROFILES["shop"])

    events, label, failed = stage("charge_failure_spike", profile="shop", strength=1)

    until = AT.timestamp() + 3 * 3600
    before = [event for event in quiet if event["created"] < AT.timestamp() - 3600]
    assert [event for event in events if event["created"] < AT.timestamp() - 3600] == before
    assert all(charge["status"] == "failed" for charge in failed)
    during = [event for event in events if label.started_at <= event["created"] <= label.ended_at]
    outcomes = Counter(event["type"] for event in during)
    assert outcomes["charge.failed"] / (outcomes["charge.failed"] + outcomes["charge.succeeded"]) > 0.8
    assert AT.timestamp() <= label.started_at <= label.ended_at < until


@pytest.mark.parametrize("strength", [0, 0.5, 1])
def test_even_a_tiny_account_has_payments_to_lose_in_an_outage(strength):
    events, label, failed = stage("charge_failure_spike", profile="tiny", strength=strength)
    during = [event for event in events if label.started_at <= event["created"] <= label.ended_at]
    outcomes = Counter(event["type"] for event in during if event["type"].startswith("charge."))

    assert len({charge["payment_intent"] for charge in failed}) >= 8
    assert 0.25 + 0.4 * strength < outcomes["charge.failed"] / outcomes.total() < 0.65 + 0.4 * strength


def test_card_testing_is_a_burst_of_small_mostly_blocked_charges_on_few_cards():
    _, label, charges = stage("card_testing")
    outcomes = Counter(charge["outcome"]["type"] for charge in charges)

    assert label.ended_at - label.started_at < 1800
    assert len(charges) > 100
    assert max(charge["amount"] for charge in charges) < 500
    assert len({charge["payment_method_details"]["card"]["fingerprint"] for charge in charges}) <= 6
    assert outcomes["blocked"] > outcomes["issuer_declined"] > 0


def test_a_double_submit_is_two_payments_of_the_same_and_names_no_order():
    _, _, charges = stage("duplicate_charge")
    one, two = charges

    assert all(one[field] == two[field] for field in ("amount", "currency", "customer", "status"))
    assert one["payment_intent"] != two["payment_intent"]
    assert 0 < two["created"] - one["created"] < 300
    assert one["metadata"] == two["metadata"] == {}


def test_an_order_charged_twice_is_named_by_both_charges():
    _, _, (one, two) = stage("duplicate_order")

    assert one["metadata"]["order_id"] == two["metadata"]["order_id"]


def test_a_fainter_double_submit_lies_further_apart():
    gaps = [
        label.ended_at - label.started_at
        for _, label, _ in (stage("duplicate_charge", profile="tiny", strength=strength) for strength in (0, 0.5, 1))
    ]

    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 10


def test_stacked_credits_make_a_renewal_below_zero():
    events, label, snapshots = stage("negative_invoice")
    final = snapshots[-1]

    assert final["billing_reason"] == "subscription_cycle"
    assert final["total"] < 0 == final["amount_due"] == final["starting_balance"]
    assert final["ending_balance"] == final["total"]
    assert final["status"] == "paid"
    assert {event["type"] for event in events if event["id"] in set(label.event_ids)} == {
        "invoice.created",
        "invoice.finalized",
        "invoice.paid",
        "invoice.payment_succeeded",
    }
    assert sum(line["description"] == "Loyalty credit" for line in final["lines"]["data"]) == 3


def test_a_fraud_spike_is_warnings_then_disputes_on_recent_charges():
    events, label, cases = stage("fraud_spike")
    charges = {event["data"]["object"]["id"]: event for event in events if event["type"] == "charge.succeeded"}
    warned = {case["charge"]: case["created"] for case in cases if case["object"] == "radar.early_fraud_warning"}
    disputed = {case["charge"]: case["created"] for case in cases if case["object"] == "dispute"}

    assert len(warned) >= 8
    assert disputed
    assert disputed.keys() <= warned.keys() <= set(label.object_ids)
    assert all(disputed[charge] > warned[charge] for charge in disputed)
    assert all(0 < warned[charge] - charges[charge]["created"] < 6 * 86_400 for charge in warned)


def test_a_stream_may_hold_the_same_incident_many_times():
    _, truth = simulate(seed=1, start=START, days=10, profile=PROFILES["shop"], incidents=["duplicate_charge"] * 4)
    labels = [label for label in truth if not label.natural]

    assert len(labels) == 4
    assert len({event_id for label in labels for event_id in label.event_ids}) == 8


def test_an_incident_behind_the_end_of_the_stream_has_no_label():
    _, labels = simulate(
        seed=1, start=START, days=2, profile=PROFILES["tiny"], incidents=[Incident(name="duplicate_charge", at=START + timedelta(days=3))]
    )

    assert not [label for label in labels if not label.natural]


def test_an_unknown_incident_is_refused_with_the_known_ones():
    with pytest.raises(InputInvalid, match="no incident `gremlins`") as caught:
        simulate(seed=1, start=START, days=1, profile=PROFILES["tiny"], incidents=["gremlins"])

    assert "duplicate_charge" in caught.value.hint


@pytest.mark.parametrize("strength", [-0.1, 1.1])
def test_a_strength_outside_its_bounds_is_refused(strength):
    with pytest.raises(InputInvalid, match="between 0 and 1"):
        simulate(seed=1, start=START, days=1, profile=PROFILES["tiny"], incidents=[Incident(name="fraud_spike", strength=strength)])


def test_labels_are_written_one_per_line():
    _, label, _ = stage("duplicate_charge")
    file = BytesIO()

    assert write_labels([label, label], file) == 2

    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert lines[0] == lines[1]
    assert lines[0]["incident"] == "duplicate_charge"


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), name=st.sampled_from(sorted(INCIDENTS)), strength=st.floats(0, 1), days=st.integers(2, 12))
def test_whatever_the_seed_an_incident_finds_its_place(seed, name, strength, days):
    incident = Incident(name=name, strength=strength)

    events, labels = simulate(seed=seed, start=START, days=days, profile=PROFILES["tiny"], incidents=[incident])

    (label,) = [label for label in labels if not label.natural]
    assert set(label.event_ids) <= {event["id"] for event in events}
    assert label.strength == strength
