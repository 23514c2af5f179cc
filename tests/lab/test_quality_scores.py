from __future__ import annotations

import importlib.util
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from billingwatch.lab.quality.measure import Cost, Measured
from billingwatch.lab.quality.plan import Stream
from billingwatch.lab.quality.report import Wish, summarize
from billingwatch.lab.quality.scores import MONTH, matched, percentile, quiet_by_kind, score, together, variants
from billingwatch.lab.quality.truth import Alarm, Truth
from billingwatch.lab.quality.words import headline, markdown, tables, verdicts
from billingwatch.simulate.incidents.scenes import Incident

NAME = "duplicate_charge"
COST = Cost(events=10, deliveries=11, visits=3, simulating=0.1, recording=0.2, visiting=0.3, ruling=0.1)


def alarm(at: float, delay: float = 0, *, severity: str = "warning", detector: str = NAME, **facts: bool) -> Alarm:
    return Alarm(
        detector=detector,
        subject="cus_1",
        severity=severity,
        summary="twice",
        opened_at=at,
        last_seen_at=at,
        detected_at=at + delay,
        objects=frozenset(),
        **facts,
    )


def truth(at: float, strength: float = 0.5, *, natural: bool = False) -> Truth:
    return Truth(
        detector=NAME,
        variant=NAME,
        strength=strength,
        description="twice",
        started_at=at,
        ended_at=at,
        arrived_at=at + 1,
        objects=frozenset(),
        natural=natural,
    )


def stream(
    ours: list[Alarm], truths: list[Truth], *, quiet: bool = False, days: int = 56, kind: str = "tiny", plain: list[Alarm] | None = None
):
    start = datetime(2026, 1, 5, tzinfo=UTC)
    incidents = () if quiet else (Incident(name=NAME),)
    asked = Stream(kind=kind, seed=1, shape="current", start=start, days=days, incidents=incidents)
    return Measured(stream=asked, truths=truths, ours=ours, plain=plain or [], dead=0, cost=COST)


def scored(*streams: Measured):
    return score(NAME, matched(streams, lambda each: each.ours, lambda _: 0.0))


def test_recall_is_the_share_of_incidents_that_were_found():
    result = scored(stream([alarm(100)], [truth(100), truth(5000)]), stream([alarm(100)], [truth(100)]))

    assert (result.recall.part, result.recall.whole) == (2, 3)
    assert result.recall.value == pytest.approx(2 / 3)


def test_precision_is_over_quiet_streams_too():
    result = scored(stream([alarm(100), alarm(900)], [truth(100)]), stream([alarm(100), alarm(200)], [], quiet=True))

    assert (result.precision.part, result.precision.whole) == (1, 4)
    assert result.quiet == 2


def test_false_alarms_a_month_are_those_of_quiet_streams_over_their_length():
    result = scored(
        stream([alarm(900)], [truth(100)]), stream([alarm(1)], [], quiet=True, days=56), stream([], [], quiet=True, days=28, kind="shop")
    )

    assert result.quiet_per_month == pytest.approx(1 / (84 / MONTH))


def test_without_a_quiet_stream_there_is_no_rate():
    assert scored(stream([alarm(900)], [truth(100)])).quiet_per_month is None


def test_without_incidents_and_alarms_there_is_no_recall_and_no_precision():
    result = scored(stream([], [], quiet=True))

    assert result.recall.value is None
    assert result.precision.value is None
    assert result.delay_median is None


def test_an_alarm_that_was_taken_back_finds_nothing_and_is_false_when_it_was_about_nothing():
    result = scored(stream([alarm(100, retracted=True), alarm(900, retracted=True)], [truth(100)]))

    assert (result.recall.part, result.recall.whole) == (0, 1)
    assert (result.precision.part, result.precision.whole) == (1, 2)
    assert result.retracted == 1


def test_what_came_too_late_counts_neither_way():
    result = scored(stream([alarm(100, historical=True), alarm(900, historical=True)], [truth(100)]))

    assert (result.recall.part, result.precision.whole, result.historical) == (0, 0, 2)


def test_the_delay_runs_from_the_first_arrival_to_the_first_alarm():
    late = [alarm(100, delay) for delay in (61, 31)]

    result = scored(stream(late, [truth(100)]))

    assert result.delay_median == 30
    assert result.repeats == 1


def test_an_alarm_before_the_first_event_arrived_has_no_negative_delay():
    assert scored(stream([alarm(100, 0)], [truth(100)])).delay_median == 0


@pytest.mark.parametrize(("share", "expected"), [(0.5, 20.0), (0.9, 40.0), (0.25, 10.0), (0.26, 20.0), (1.0, 40.0), (0.0, 10.0)])
def test_a_percentile_is_one_of_the_values(share: float, expected: float):
    assert percentile([10.0, 20.0, 30.0, 40.0], share) == expected


def test_the_curve_has_a_point_for_each_strength_that_was_put_in():
    result = scored(stream([alarm(100)], [truth(100, 1.0), truth(5000, 0.0), truth(9000, 1.0), truth(100, 0.5, natural=True)]))

    assert [(point.strength, point.found.part, point.found.whole) for point in result.curve] == [(0.0, 0, 1), (1.0, 1, 2)]
    assert result.recall.whole == 4


def test_each_kind_of_incident_has_a_recall_of_its_own():
    found = variants(matched([stream([alarm(100)], [truth(100), truth(9000)])], lambda each: each.ours, lambda _: 0.0))

    assert [(each.detector, each.variant, each.found.part, each.found.whole) for each in found] == [(NAME, NAME, 1, 2)]


def test_quiet_streams_are_counted_by_kind_of_business_and_together():
    streams = [
        stream([alarm(1), alarm(2, severity="info"), alarm(3, detector="fraud_spike"), alarm(4, detector="other")], [], quiet=True),
        stream([], [], quiet=True, kind="shop"),
        stream([alarm(900)], [truth(100)], kind="shop"),
    ]

    rows = quiet_by_kind(matched(streams, lambda each: each.ours, lambda _: 0.0), frozenset({NAME, "fraud_spike"}))

    assert [(row.kind, row.false_alarms, row.loud) for row in rows] == [("tiny", 3, 2), ("shop", 0, 0)]
    whole = together(rows)
    assert whole is not None
    assert whole.per_month == pytest.approx(3 / (112 / MONTH))


WISH = Wish(rounds=1, weeks=8, kinds=("tiny",), incidents=(NAME,), tuning=True)


def test_the_report_names_what_was_missed_and_what_was_wrong():
    quiet = stream([alarm(7)], [], quiet=True, plain=[alarm(8), alarm(9, detector="no_such_detector")])
    report = summarize(WISH, [quiet, stream([alarm(100), alarm(900)], [truth(100, 1.0), truth(5000, 0.0)])], seconds=90)

    assert [(missed.detector, missed.strength, missed.alarms) for missed in report.ours.missed] == [(NAME, 0.0, 0)]
    assert [(wrong.opened_at, wrong.quiet, wrong.verdict) for wrong in report.ours.wrong] == [(7, True, "false"), (900, False, "false")]
    assert [wrong.opened_at for wrong in report.plain.wrong] == [8]


def test_the_report_is_told_in_tables_and_says_what_falls_short():
    quiet = stream([alarm(7), alarm(8)], [], quiet=True)
    report = summarize(WISH, [quiet, stream([alarm(100), alarm(900)], [truth(100, 1.0), truth(5000, 0.0)])], seconds=90)

    rows = {title: rows for title, _, rows in tables(report)}
    detectors, fates, curves, kinds = rows.values()

    assert headline(report) == (
        f"2 streams of 8 weeks, 20 events, 3.7 tenant-months; tiny; tuning seeds 1 to 1; 1.5 minutes on {report.machine.cores} cores"
    )
    assert [NAME, "2", "50.0%", "25.0%", "1.09", "0 s", "0 s", "0.0%", "–", "0.00"] in detectors
    assert [NAME, "1", "0", "3", "0", "0", "0", "1"] in fates
    assert curves == [[NAME, NAME, "1/2", "0/1", "–", "–", "–", "1/1", "▁   █"]]
    assert kinds == [["tiny", "1.8", "2", "1.09", "2", "0", "0.00"], ["all", "1.8", "2", "1.09", "2", "0", "0.00"]]
    assert f"{NAME}: recall 50.0%, the aim is 95%" in list(verdicts(report))
    assert "1.09 false alarms per tenant and month on streams without incidents, the aim is < 1" in list(verdicts(report))


def test_a_share_that_is_not_whole_is_never_shown_as_whole():
    report = summarize(WISH, [stream([alarm(100)], [truth(100)] * 9999 + [truth(5000)])], seconds=1)

    assert next(row for row in next(tables(report))[2] if row[0] == NAME)[2] == "99.9%"


def test_the_readme_gets_a_row_for_each_detector():
    report = summarize(WISH, [stream([], [], quiet=True), stream([alarm(100, 61)], [truth(100)])], seconds=90)

    text = markdown(report)

    assert f"| `{NAME}` | 1 | 100% | 100% | 0.00 | 60 s | 0.0% | – | 0.00 |" in text
    assert "| all together |  |  |  | 0.00 |  |  |  | 0.00 |" in text
    assert text.endswith(f"From {headline(report)}.")


@pytest.fixture
def readme_quality():
    spec = importlib.util.spec_from_file_location("readme_quality", Path(__file__).parents[2] / "scripts" / "readme_quality.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_report_takes_its_place_in_the_readme(readme_quality):
    report = summarize(msgspec.structs.replace(WISH, tuning=False), [stream([alarm(100)], [truth(100)])], seconds=1)

    text = readme_quality.render("before\n<!-- detection report -->\nold\n<!-- /detection report -->\nafter\n", report)

    assert text == f"before\n<!-- detection report -->\n{markdown(report)}\n<!-- /detection report -->\nafter\n"


def test_figures_of_tuning_seeds_do_not_get_into_the_readme(readme_quality):
    report = summarize(WISH, [stream([alarm(100)], [truth(100)])], seconds=1)

    with pytest.raises(ValueError, match="tuning seeds"):
        readme_quality.render("<!-- detection report -->\n<!-- /detection report -->", report)


def test_a_readme_without_a_place_for_the_report_is_an_error(readme_quality):
    report = summarize(msgspec.structs.replace(WISH, tuning=False), [stream([], [])], seconds=1)

    with pytest.raises(ValueError, match="mark the place"):
        readme_quality.render("no place", report)


def test_nobody_has_to_find_what_is_arguable():
    doubtful = msgspec.structs.replace(truth(5000), arguable=True)
    found, silent = stream([alarm(1000), alarm(5000)], [truth(1000), doubtful]), stream([alarm(1000)], [truth(1000), doubtful])

    for each in (found, silent):
        assert scored(each).recall.part == scored(each).recall.whole == 1
        assert (scored(each).precision.part, scored(each).precision.whole) == (1, 1)
        assert summarize(WISH, [each], seconds=1).ours.missed == []
