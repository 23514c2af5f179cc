"""The detectors as people see and set them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import msgspec
import pytest

from billingwatch.detection.catalog import changed, describe, find_detector, override
from billingwatch.detection.detector import Detector, Thresholds, threshold
from billingwatch.detection.detectors.fraud_spike import FraudSpike
from billingwatch.detection.registry import DETECTORS
from billingwatch.detection.tuning import UNTUNED, Tuning, thresholds_of
from billingwatch.errors import DetectorNotFound, ThresholdsInvalid
from billingwatch.tenancy.tenants import DetectorSetting

from .history import NOON


class Paired(Thresholds, frozen=True, kw_only=True):
    low: Annotated[int, threshold("Lower", unit="things", ge=1, le=100)] = 10
    high: Annotated[int, threshold("Higher", unit="things", ge=1, le=100)] = 20

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("`low` must not be above `high`")


FRAUD = DETECTORS["fraud_spike"]
PAIRED: Detector[Any] = msgspec.structs.replace(FRAUD, thresholds=Paired)
LEARNS: Detector[Any] = msgspec.structs.replace(FRAUD, warm_up=lambda _: timedelta(days=21))


def setting(thresholds: str = "{}", *, active: bool = True) -> DetectorSetting:
    return DetectorSetting(detector="fraud_spike", active=active, thresholds=thresholds)


@pytest.mark.parametrize("detector", DETECTORS.values(), ids=DETECTORS)
def test_every_detector_is_described_and_its_bounds_admit_their_ends(detector: Detector[Any]):
    row = describe(detector, UNTUNED, beginning=None, as_of=NOON)

    for each in row.thresholds:
        assert each.value == each.default
        alone = msgspec.structs.replace(detector, thresholds=each_alone(detector, each.key))
        for value in (each.minimum, each.maximum):
            override(alone, alone.thresholds(), {each.key: value})
        for value in (each.minimum - 1, each.maximum + 1):
            with pytest.raises(ThresholdsInvalid, match=f"`{each.key}` must be"):
                override(alone, alone.thresholds(), {each.key: value})


def each_alone(detector: Detector[Any], key: str) -> Any:
    (field,) = [field for field in msgspec.structs.fields(detector.thresholds) if field.name == key]
    return msgspec.defstruct("Alone", [(key, field.type, field.default)], bases=(Thresholds,), frozen=True, kw_only=True)


def test_a_detector_learns_until_its_warm_up_has_passed_since_the_tenants_first_row():
    begun, learned = NOON - timedelta(days=20), NOON + timedelta(days=1)

    nothing = describe(LEARNS, UNTUNED, beginning=None, as_of=NOON)
    learning = describe(LEARNS, UNTUNED, beginning=begun, as_of=NOON)
    active = describe(LEARNS, UNTUNED, beginning=begun, as_of=learned)
    off = describe(LEARNS, Tuning(off=frozenset({"fraud_spike"})), beginning=begun, as_of=learned)
    at_once = describe(FRAUD, UNTUNED, beginning=None, as_of=NOON)

    assert (nothing.state, nothing.learning_until) == ("learning", None)
    assert (learning.state, learning.learning_until) == ("learning", learned)
    assert (active.state, active.learning_until) == ("active", None)
    assert (off.state, at_once.state) == ("off", "active")


def test_time_drives_a_detector_that_has_a_grid():
    hourly = msgspec.structs.replace(FRAUD, every=timedelta(hours=1))

    assert [describe(each, UNTUNED, beginning=None, as_of=NOON).driven_by for each in (FRAUD, hourly)] == ["events", "time"]


def test_only_what_differs_from_the_defaults_is_kept():
    once = changed(FRAUD, setting(), thresholds={"min_cases": 9, "window_days": 7})
    back = changed(FRAUD, once, active=False, thresholds={"min_cases": None})

    assert msgspec.json.decode(once.thresholds) == {"min_cases": 9}
    assert (back.thresholds, back.active) == ("{}", False)


def test_what_this_release_does_not_know_or_admit_is_dropped_when_something_is_set():
    stored = setting('{"min_cases": 9, "of_another_release": 3, "window_days": 100000}')

    assert thresholds_of(FRAUD, stored) == FraudSpike(min_cases=9)
    assert msgspec.json.decode(changed(FRAUD, stored, thresholds={"min_rate": 0.5}).thresholds) == {"min_cases": 9, "min_rate": 0.5}


def test_thresholds_that_do_not_go_together_are_refused_however_they_are_set():
    with pytest.raises(ThresholdsInvalid, match="`low` must not be above `high`"):
        changed(PAIRED, setting(), thresholds={"low": 30})
    with pytest.raises(ThresholdsInvalid, match="`low` must not be above `high`"):
        changed(PAIRED, setting('{"low": 20}'), thresholds={"high": 15})

    assert msgspec.json.decode(changed(PAIRED, setting(), thresholds={"low": 30, "high": 40}).thresholds) == {"high": 40, "low": 30}


def test_a_stored_pair_holds_although_each_alone_would_not_go_with_the_others_default():
    assert thresholds_of(PAIRED, setting('{"low": 30, "high": 40}')) == Paired(low=30, high=40)


def test_a_stored_pair_that_no_longer_goes_together_is_the_default_and_stops_nobody():
    assert thresholds_of(PAIRED, setting('{"low": 30}')) == Paired()


def test_an_unknown_detector_is_not_found():
    with pytest.raises(DetectorNotFound, match="there is no detector `fraud`"):
        find_detector("fraud")
