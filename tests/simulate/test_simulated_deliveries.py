from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billingwatch.errors import InputInvalid
from billingwatch.simulate.deliveries import TROUBLES, Trouble, deliver, deliver_and_tell
from billingwatch.simulate.profiles import PROFILES
from billingwatch.simulate.stream import rhythm_of, simulate

START = datetime(2026, 8, 17, tzinfo=UTC)
AT = START + timedelta(days=9, hours=12)
EVENTS = {name: simulate(seed=3, start=START, days=14, profile=PROFILES[name])[0] for name in ("tiny", "saas")}


def troubled(name, *, profile="saas", strength=0.7, seed=1):
    deliveries, labels = deliver_and_tell(EVENTS[profile], seed=seed, troubles=[Trouble(name=name, at=AT, strength=strength)])
    (label,) = labels
    named = set(label.event_ids)
    return deliveries, label, [delivery for delivery in deliveries if delivery.event["id"] in named]


def test_a_delivery_is_signed_before_it_arrives_and_after_its_event():
    for delivery in deliver(EVENTS["saas"], seed=1):
        assert delivery.event["created"] <= delivery.signed_at < delivery.at


def test_what_comes_late_is_a_later_attempt():
    deliveries = deliver(EVENTS["saas"], seed=1, late=0.1, doubled=0)

    for delivery in deliveries:
        assert (delivery.attempt > 1) == (delivery.at - delivery.event["created"] > 10)
    assert 0.07 < sum(delivery.attempt > 1 for delivery in deliveries) / len(deliveries) < 0.14


def test_a_receiver_restarts_now_and_then_and_loses_nothing():
    again = []
    for seed in range(10):
        deliveries = deliver(EVENTS["saas"], seed=seed, late=0, doubled=0)
        assert {delivery.event["id"] for delivery in deliveries} == {event["id"] for event in EVENTS["saas"]}
        again.append(sum(delivery.attempt > 1 for delivery in deliveries))

    assert 0 < sum(again) / len(again) < 40


@pytest.mark.parametrize("name", TROUBLES)
def test_a_trouble_leaves_the_other_deliveries_as_they_were(name):
    quiet = deliver(EVENTS["saas"], seed=1)

    deliveries, label, _ = troubled(name)

    named = set(label.event_ids)
    assert [one for one in quiet if one.event["id"] not in named] == [one for one in deliveries if one.event["id"] not in named]
    assert 0 < len(named) < len(EVENTS["saas"]) / 4
    assert (label.incident, label.variant, label.natural) == (TROUBLES[name].detector, name, False)


@pytest.mark.parametrize("name", TROUBLES)
def test_the_same_trouble_gives_the_same_deliveries(name):
    assert troubled(name)[:2] == troubled(name)[:2]


@pytest.mark.parametrize("profile", EVENTS)
def test_in_a_silence_nothing_arrives_and_afterwards_everything_does(profile):
    lengths = []
    for strength in (0, 0.5, 1):
        deliveries, label, missed = troubled("webhook_silence", profile=profile, strength=strength)
        assert label.started_at == AT.timestamp()
        assert not [delivery for delivery in deliveries if label.started_at <= delivery.at < label.ended_at]
        assert all(delivery.attempt > 1 and delivery.at >= label.ended_at for delivery in missed)
        assert len({delivery.event["id"] for delivery in deliveries}) > len(EVENTS[profile]) - 5
        lengths.append(label.ended_at - label.started_at)

    assert lengths == sorted(lengths)
    assert 2 * 3600 <= lengths[0] <= lengths[-1] <= 60 * 3600
    assert profile == "tiny" or lengths[0] < lengths[-1]


def happenings(events):
    times = sorted(event["created"] for event in events)
    return 1 + sum(later - earlier > 600 for earlier, later in pairwise(times))


@pytest.mark.parametrize(("name", "faint", "loud"), [("webhook_silence", 18, 30), ("webhook_lag", 5, 9), ("webhook_lag_network", 5, 9)])
def test_a_trouble_lasts_until_it_has_kept_enough_of_what_happened(name, faint, loud):
    """Events come in bursts: one renewal makes a dozen, and an account that misses one burst misses nothing that it would know of."""
    for strength, at_least in ((0, faint), (1, loud)):
        _, label, _ = troubled(name, strength=strength)
        end = label.ended_at if name == "webhook_silence" else label.ended_at + 600
        known = set(label.event_ids)
        assert happenings([event for event in EVENTS["saas"] if event["id"] in known and event["created"] < end]) >= at_least


def test_what_is_too_quiet_to_be_missed_within_days_is_not_asked_for_a_silence():
    fits = TROUBLES["webhook_silence"].fits

    assert [name for name in PROFILES if not fits(PROFILES[name])] == ["tiny"]


def test_a_quieter_account_must_be_silent_for_longer():
    _, tiny, _ = troubled("webhook_silence", profile="tiny", strength=0)
    _, saas, _ = troubled("webhook_silence", profile="saas", strength=0)

    assert tiny.ended_at - tiny.started_at > 3 * (saas.ended_at - saas.started_at)


MISSED_AT_ONCE = [{"id": f"evt_{number}", "created": int(AT.timestamp()) + 660 * number} for number in range(1, 30)]


@pytest.mark.parametrize(("profile", "arguable"), [("saas", True), ("shop", False), ("volume", False)])
def test_nobody_has_to_find_a_silence_that_chance_makes_every_year(profile, arguable):
    """By chance as much happened in three hours as else in a day of `saas`, so that the silence ended after three."""
    trouble = Trouble(name="webhook_silence", at=AT, strength=0)
    rhythm = rhythm_of(seed=3, start=START, days=14, profile=PROFILES[profile])

    _, (label,) = deliver_and_tell(MISSED_AT_ONCE, seed=1, troubles=[trouble], rhythm=rhythm)
    _, (untold,) = deliver_and_tell(MISSED_AT_ONCE, seed=1, troubles=[trouble])

    assert label.ended_at - label.started_at < 4 * 3600
    assert (label.arguable, untold.arguable) == (arguable, False)


@pytest.mark.parametrize("profile", ["saas", "b2b"])
def test_chance_makes_a_silence_at_the_edge_of_what_shows_about_once_a_year(profile):
    rhythm = rhythm_of(seed=3, start=START, days=14, profile=PROFILES[profile])
    since = int(AT.timestamp())
    edge = next(until for until in range(since, since + 7 * 86_400, 600) if rhythm.shows(since, until))
    happens = 365 / 14 * rhythm.expected(int(START.timestamp()), int(START.timestamp()) + 14 * 86_400)
    rng = Random(1)
    longer = sum(rng.expovariate(1) > rhythm.expected(since, edge) for _ in range(int(30 * happens)))

    assert 10 < longer <= 60


@pytest.mark.parametrize("profile", ["shop", "marketplace"])
def test_the_rhythm_is_what_the_stream_has_on_average(profile):
    days, quiet = 28, msgspec.structs.replace(PROFILES[profile], habits_per_week=0.0)
    events, _ = simulate(seed=3, start=START, days=days, profile=quiet)
    wishes = sum(event["type"] == "payment_intent.created" for event in events)
    first = int(START.timestamp())

    assert rhythm_of(seed=3, start=START, days=days, profile=quiet).expected(first, first + days * 86_400) == pytest.approx(wishes, rel=0.1)


@pytest.mark.parametrize("profile", EVENTS)
def test_a_slow_stripe_signs_late_and_the_network_is_as_fast_as_ever(profile):
    delays = []
    for strength in (0, 1):
        _, label, slow = troubled("webhook_lag", profile=profile, strength=strength)
        first = {delivery.event["id"]: delivery for delivery in reversed(slow)}.values()
        assert len(first) == len(label.event_ids) >= (3 if profile == "tiny" else 5)
        assert all(delivery.at - delivery.signed_at == 1 for delivery in first)
        delays.append(min(delivery.signed_at - delivery.event["created"] for delivery in first))

    assert delays[0] > 300
    assert delays[1] > 4000


@pytest.mark.parametrize("strength", [0, 0.5, 1])
def test_a_slow_stripe_keeps_the_order_of_what_it_sends_but_for_seconds(strength):
    _, label, slow = troubled("webhook_lag", strength=strength)

    first = {}
    for delivery in slow:
        first.setdefault(delivery.event["id"], delivery)
    on_time = [one for one in first.values() if one.attempt == 1 and one.event["created"] >= label.started_at]
    assert len(on_time) > 5
    newest = 0
    for delivery in on_time:
        assert delivery.event["created"] > newest - 60
        newest = max(newest, delivery.event["created"])


def test_a_slow_network_holds_back_what_was_signed_in_time_but_not_until_the_signature_is_void():
    for strength, at_least in ((0, 40), (1, 160)):
        _, label, slow = troubled("webhook_lag_network", strength=strength)
        first = [delivery for delivery in {one.event["id"]: one for one in reversed(slow)}.values() if delivery.attempt == 1]
        assert len(first) >= 5
        assert all(delivery.signed_at - delivery.event["created"] < 5 for delivery in first)
        assert all(at_least < delivery.at - delivery.signed_at < 300 for delivery in first)
        assert label.ended_at >= max(delivery.at for delivery in first)


def test_a_storm_brings_the_same_events_over_and_over():
    for strength, events, times in ((0, 1, 8), (0.5, 10, 27), (1, 20, 48)):
        _, label, storm = troubled("delivery_storm", strength=strength)
        counts = Counter(delivery.event["id"] for delivery in storm)
        assert len(counts) == len(label.event_ids) == events
        assert min(counts.values()) >= times
        attempts = [delivery.attempt for delivery in storm if delivery.event["id"] == label.event_ids[0]]
        assert attempts == sorted(set(attempts))
        assert label.started_at <= storm[0].at <= storm[-1].at == label.ended_at


def test_several_troubles_have_a_label_each():
    wishes = [Trouble(name=name, at=AT + timedelta(days=place)) for place, name in enumerate(TROUBLES)]

    _, labels = deliver_and_tell(EVENTS["saas"], seed=1, troubles=wishes)

    assert {label.variant for label in labels} == set(TROUBLES)
    assert [label.started_at for label in labels] == sorted(label.started_at for label in labels)


def test_a_trouble_without_events_has_no_label():
    assert deliver_and_tell([], seed=1, troubles=[Trouble(name="webhook_silence", at=AT)]) == ([], [])
    late = Trouble(name="delivery_storm", at=START + timedelta(days=30))
    assert deliver_and_tell(EVENTS["tiny"], seed=1, troubles=[late])[1] == []


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (Trouble(name="gremlins", at=AT), "no trouble `gremlins`"),
        (Trouble(name="webhook_lag", at=AT, strength=1.5), "between 0 and 1"),
        (Trouble(name="webhook_lag", at=AT.replace(tzinfo=None)), "time zone"),
    ],
)
def test_a_trouble_that_cannot_be_is_refused(trouble, reason):
    with pytest.raises(InputInvalid, match=reason):
        deliver(EVENTS["tiny"], seed=1, troubles=[trouble])


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), name=st.sampled_from(sorted(TROUBLES)), strength=st.floats(0, 1), hours=st.integers(0, 14 * 24))
def test_whatever_goes_wrong_deliveries_are_in_order_and_of_known_events(seed, name, strength, hours):
    trouble = Trouble(name=name, at=START + timedelta(hours=hours), strength=strength)

    deliveries, labels = deliver_and_tell(EVENTS["tiny"], seed=seed, troubles=[trouble])

    known = {event["id"] for event in EVENTS["tiny"]}
    assert {delivery.event["id"] for delivery in deliveries} <= known
    assert [delivery.at for delivery in deliveries] == sorted(delivery.at for delivery in deliveries)
    assert all(delivery.event["created"] <= delivery.signed_at < delivery.at for delivery in deliveries)
    for label in labels:
        assert set(label.event_ids) <= known
        assert label.started_at <= label.ended_at
