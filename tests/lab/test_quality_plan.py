from __future__ import annotations

import math
from collections import Counter
from datetime import timedelta
from itertools import pairwise

import pytest

from billingwatch.detection.registry import DETECTORS
from billingwatch.lab.quality.plan import (
    LASTS_AT_MOST,
    LEARNING,
    OUTLOOK,
    REPORT_SEEDS,
    STRENGTHS,
    THINGS,
    TUNING_SEEDS,
    Stream,
    detector_of,
    plan_streams,
)
from billingwatch.lab.quality.report import Wish
from billingwatch.simulate.deliveries import TROUBLES
from billingwatch.simulate.incidents.registry import INCIDENTS
from billingwatch.simulate.profiles import PROFILES

KINDS, NAMES = tuple(PROFILES), THINGS


def wishes(stream: Stream):
    return [*stream.incidents, *stream.troubles]


def fitting(kind: str) -> list[str]:
    return [name for name in NAMES if {**INCIDENTS, **TROUBLES}[name].fits(PROFILES[kind])]


def plan(**options: object):
    return plan_streams(**{"seeds": TUNING_SEEDS, "rounds": 2, "days": 56, "kinds": KINDS, "incidents": NAMES} | options)


def wished(*, tuning: bool) -> set[int]:
    return {stream.seed for stream in Wish(rounds=3, weeks=8, kinds=KINDS, incidents=NAMES, tuning=tuning).plan()}


def test_no_seed_of_the_report_is_one_for_tuning():
    assert not set(REPORT_SEEDS) & set(TUNING_SEEDS)
    assert wished(tuning=True) <= set(TUNING_SEEDS)
    assert wished(tuning=False) <= set(REPORT_SEEDS)


def test_each_stream_is_an_account_of_its_own():
    streams = plan()

    assert len({stream.seed for stream in streams}) == len({stream.name for stream in streams}) == len(streams)


def test_a_kind_of_business_has_the_same_accounts_whatever_else_is_measured():
    assert plan(kinds=("shop",), incidents=NAMES[:1])[0] == next(stream for stream in plan() if stream.kind == "shop")


def test_each_kind_and_round_has_a_quiet_stream_and_each_incident_twice_or_more_often_where_few_kinds_have_it():
    streams = plan(rounds=1)

    for kind in KINDS:
        alike = [stream for stream in streams if stream.kind == kind]
        assert sum(not wishes(stream) for stream in alike) == 1
        often = {name: 2 * math.ceil(len(KINDS) / sum(name in fitting(each) for each in KINDS)) for name in fitting(kind)}
        assert Counter(wish.name for stream in alike for wish in wishes(stream)) == often


def test_of_each_incident_there_are_as_many_as_there_would_be_if_it_fitted_every_kind():
    counts = Counter(wish.name for stream in plan() for wish in wishes(stream))

    assert all(counts[name] >= 2 * 2 * len(KINDS) for name in NAMES)


def test_each_kind_of_business_comes_in_both_api_shapes_with_and_without_incidents():
    shapes = {(stream.kind, stream.shape, bool(wishes(stream))) for stream in plan()}

    assert shapes == {(kind, shape, busy) for kind in KINDS for shape in ("legacy", "current") for busy in (True, False)}


def test_each_incident_comes_in_every_strength():
    strengths = {name: {wish.strength for stream in plan() for wish in wishes(stream) if wish.name == name} for name in NAMES}

    assert strengths == {name: set(STRENGTHS) for name in NAMES}


def test_incidents_come_on_working_days_when_their_detector_has_learned_and_early_enough_to_be_found():
    for stream in plan():
        for wish in wishes(stream):
            detector = DETECTORS.get(detector_of(wish.name))
            learned = max(timedelta(days=LEARNING), detector.warm_up(detector.thresholds()) if detector else timedelta(0))
            assert wish.at is not None
            assert stream.start + learned <= wish.at < stream.start + timedelta(days=stream.days - OUTLOOK)
            lasts = INCIDENTS[wish.name].lasts if wish.name in INCIDENTS else 0
            assert wish.at + min(timedelta(seconds=lasts), timedelta(days=LASTS_AT_MOST)) < stream.start + timedelta(days=stream.days)
            assert wish.at.weekday() < 5


def test_an_incident_waits_for_a_detector_that_learns_for_long(monkeypatch):
    name = NAMES[0]
    monkeypatch.setattr("billingwatch.lab.quality.plan._learned", lambda each: 45 if each == name else 0)

    for stream in plan():
        for wish in wishes(stream):
            assert wish.at is not None
            assert wish.name != name or wish.at >= stream.start + timedelta(days=45)


def test_incidents_of_one_detector_are_days_apart():
    for stream in plan():
        times: dict[str, list[float]] = {}
        for wish in wishes(stream):
            assert wish.at is not None
            times.setdefault(detector_of(wish.name), []).append(wish.at.timestamp())
        for moments in map(sorted, times.values()):
            assert all(later - earlier > 2 * 86_400 for earlier, later in pairwise(moments))


@pytest.mark.parametrize("days", [7, 14])
def test_a_short_stream_has_its_incidents_in_its_second_half(days: int):
    for stream in plan(days=days, incidents=NAMES[:1]):
        for wish in wishes(stream):
            assert wish.at is not None
            assert wish.at >= stream.start + timedelta(days=days // 2)


def test_the_same_wish_gives_the_same_plan():
    assert plan() == plan()
