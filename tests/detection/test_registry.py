from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from billingwatch.detection.catalog import override
from billingwatch.detection.detector import Detector
from billingwatch.detection.registry import DETECTORS
from billingwatch.errors import ThresholdsInvalid
from billingwatch.postgres.tenant_plane import metadata

FRAUD = DETECTORS["fraud_spike"]
ALL = pytest.mark.parametrize("detector", DETECTORS.values(), ids=DETECTORS)


def fields_of(detector: Detector[Any]) -> dict[str, dict[str, Any]]:
    schema = msgspec.json.schema(detector.thresholds)
    return schema["$defs"][detector.thresholds.__name__]["properties"]


@ALL
def test_a_detector_is_named_and_described(detector: Detector[Any]):
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", detector.name)
    assert DETECTORS[detector.name] is detector
    assert detector.parameters.__module__.endswith(f".detectors.{detector.name}")
    assert detector.title
    assert detector.description.endswith(".")


@ALL
def test_every_threshold_has_a_description_a_unit_bounds_and_a_default(detector: Detector[Any]):
    for name, field in fields_of(detector).items():
        assert {"description", "x-unit", "minimum", "maximum", "default"} <= set(field), name
        assert field["minimum"] <= field["default"] <= field["maximum"], name


@ALL
def test_a_detector_watches_tables_and_columns_that_exist(detector: Detector[Any]):
    for table, watch in detector.watches.items():
        # What a kind of object was before is watched by the kind, and kept in one table.
        kept_in = "states" if table.endswith("_states") else table
        assert watch.columns <= set(metadata.tables[kept_in].columns.keys())


@ALL
def test_a_detectors_sql_is_one_text_for_all_tenants_and_both_isolations(detector: Detector[Any]):
    for statement in (detector.candidates, detector.incidents):
        assert not re.search(r"\bSELECT \*|\.\*|\b(now|clock_timestamp|current_timestamp|random)\b|;", statement, re.IGNORECASE)
        for table in re.findall(r"\b(?:FROM|JOIN) ([a-z_.]+) AS", statement):
            assert "." not in table


def test_thresholds_not_given_keep_their_values():
    thresholds = override(FRAUD, FRAUD.thresholds(min_rate=0.03), {"min_cases": 3})

    assert (thresholds.min_cases, thresholds.min_rate, thresholds.window_days) == (3, 0.03, 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_cases": 1}, r"thresholds of fraud_spike: `min_cases` must be a whole number from 2 to \d+ \(.+\)"),
        ({"min_rate": 7.5}, r"`min_rate` must be a number from .+ to 1(\.0)? "),
        ({"min_case": 5}, r"`min_case` is none of them; they are .*`min_cases`"),
        ({"window_days": "7"}, "`window_days` must be a whole number from "),
    ],
)
def test_a_threshold_out_of_bounds_or_unknown_is_refused_by_name(changes: dict[str, object], message: str):
    with pytest.raises(ThresholdsInvalid, match=message):
        override(FRAUD, FRAUD.thresholds(), changes)
