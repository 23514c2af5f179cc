from __future__ import annotations

from collections import Counter
from datetime import timedelta
from itertools import pairwise

import pytest

from billingwatch.lab.quality.plan import LEARNING, OUTLOOK, REPORT_SEEDS, STRENGTHS, TUNING_SEEDS, plan_streams
from billingwatch.lab.quality.report import Wish
from billingwatch.simulate.incidents.registry import INCIDENTS
from billingwatch.simulate.profiles import PROFILES

KINDS, NAMES = tuple(PROFILES), tuple(INCIDENTS)


def plan(**options: object):
    return plan_streams(**{"seeds": (1, 2), "days": 56, "kinds": KINDS, "incidents": NAMES} | options)


def test_no_seed_of_the_report_is_one_for_tuning():
    assert not set(REPORT_SEEDS) & set(TUNING_SEEDS)
    assert _seeds(tuning=True) == set(TUNING_SEEDS[:3])
    assert _seeds(tuning=False) == set(REPORT_SEEDS[:3])


def _seeds(*, tuning: bool) -> set[int]:
    wish = Wish(seeds=3, weeks=8, kinds=("tiny",), incidents=NAMES, tuning=tuning)
    return {stream.seed for stream in wish.plan()}


def test_each_kind_and_seed_has_a_quiet_stream_and_each_incident_twice():
    streams = plan()

    for kind in KINDS:
        for seed in (1, 2):
            alike = [stream for stream in streams if (stream.kind, stream.seed) == (kind, seed)]
            assert [stream.part for stream in alike if not stream.incidents] == [0]
            assert Counter(wish.name for stream in alike for wish in stream.incidents) == dict.fromkeys(NAMES, 2)
    assert len({stream.name for stream in streams}) == len(streams)


def test_each_kind_of_business_comes_in_both_api_shapes():
    shapes = {(stream.kind, stream.shape) for stream in plan()}

    assert shapes == {(kind, shape) for kind in KINDS for shape in ("legacy", "current")}


def test_streams_of_one_kind_and_seed_are_the_same_account():
    for seed in (1, 2):
        alike = [stream for stream in plan(kinds=("saas",)) if stream.seed == seed]
        assert len({(stream.start, stream.shape, stream.days) for stream in alike}) == 1


def test_each_incident_comes_in_every_strength():
    strengths = {name: {wish.strength for stream in plan() for wish in stream.incidents if wish.name == name} for name in NAMES}

    assert strengths == {name: set(STRENGTHS) for name in NAMES}


def test_incidents_come_after_the_learning_and_before_the_end_on_working_days():
    for stream in plan():
        for wish in stream.incidents:
            assert wish.at is not None
            assert stream.start + timedelta(days=LEARNING) <= wish.at < stream.start + timedelta(days=stream.days - OUTLOOK)
            assert wish.at.weekday() < 5


def test_incidents_of_one_detector_are_days_apart():
    for stream in plan():
        times: dict[str, list[float]] = {}
        for wish in stream.incidents:
            assert wish.at is not None
            times.setdefault(INCIDENTS[wish.name].detector, []).append(wish.at.timestamp())
        for moments in map(sorted, times.values()):
            assert all(later - earlier > 2 * 86_400 for earlier, later in pairwise(moments))


@pytest.mark.parametrize("days", [7, 14])
def test_a_short_stream_has_its_incidents_in_its_second_half(days: int):
    for stream in plan(days=days, incidents=NAMES[:1]):
        for wish in stream.incidents:
            assert wish.at is not None
            assert wish.at >= stream.start + timedelta(days=days // 2)


def test_the_same_wish_gives_the_same_plan():
    assert plan() == plan()
