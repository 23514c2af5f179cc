"""Results are kept as they were measured, and put together without losing any."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from billingwatch.errors import InputInvalid
from billingwatch.lab.isolation.cell import QUICK, Cell
from billingwatch.lab.isolation.dimension import Measure
from billingwatch.lab.isolation.report import write_report
from billingwatch.lab.isolation.results import CELLS, About, Result, Results
from billingwatch.lab.isolation.summary import Spot, Value, compare, crossovers, summarize
from billingwatch.lab.machine import Machine

LESS = Measure(key="p99", title="p99", unit="ms")
MORE = Measure(key="rate", title="rate", unit="events/s", better="more")
ABOUT = About(
    machine=Machine(system="Linux", cores=2, python="3.11.0"), postgres="18.0", settings={"fsync": "on"}, release="0.1.0", scale=QUICK
)


def result(arm: str = "schema", tenants: int = 10, repetition: int = 0, dimension: str = "ingest", **figures: float) -> Result:
    cell = Cell(dimension=dimension, arm=arm, tenants=tenants, choice="uniform", volume="each", repetition=repetition)
    return Result(cell=cell, figures=figures, began_at=datetime(2026, 3, 1, tzinfo=UTC), seconds=1.5)


def value(*figures: float, times: int = 3) -> Value:
    """A value of repetitions; a single figure is that of all of them."""
    return Value(dict(enumerate(figures if len(figures) > 1 else figures * times)))


def test_a_cell_that_was_kept_is_not_measured_again(tmp_path: Path):
    results = Results(tmp_path)
    kept = result(p99=12.5)

    results.keep(kept)

    assert results.has(kept.cell)
    assert not results.has(result(repetition=1).cell)
    assert list(Results(tmp_path).read()) == [kept]


def test_results_of_another_machine_are_refused(tmp_path: Path):
    Results(tmp_path).begin(ABOUT)

    with pytest.raises(InputInvalid, match="another machine"):
        Results(tmp_path).begin(msgspec.structs.replace(ABOUT, postgres="15.0"))


def test_more_tenants_and_repetitions_may_be_measured_later(tmp_path: Path):
    Results(tmp_path).begin(ABOUT)

    more = msgspec.structs.replace(ABOUT, scale=msgspec.structs.replace(QUICK, tenants=(10, 100, 1000), repetitions=9))
    Results(tmp_path).begin(more)

    assert Results(tmp_path).about == more


def test_a_result_that_is_broken_is_named(tmp_path: Path):
    Results(tmp_path).keep(result(p99=1.0))
    with (tmp_path / CELLS).open("a") as file:
        file.write('{"cell": 1}\n')

    with pytest.raises(InputInvalid, match=f"line 2 of .*{CELLS}"):
        Results(tmp_path)


def test_half_a_result_is_measured_again(tmp_path: Path):
    first, second = result(p99=1.0), result(repetition=1, p99=2.0)
    results = Results(tmp_path)
    results.keep(first)
    results.keep(second)
    whole = (tmp_path / CELLS).read_bytes()
    (tmp_path / CELLS).write_bytes(whole[:-20])

    again = Results(tmp_path)
    left = list(again.read())
    again.keep(second)

    assert left == [first]
    assert (tmp_path / CELLS).read_bytes() == whole


def test_repetitions_become_a_median_with_its_spread():
    found = summarize(result(repetition=number, p99=figure) for number, figure in enumerate((30.0, 10.0, 20.0)))

    spot = Spot(dimension="ingest", measure="p99", volume="each", choice="uniform", tenants=10)
    [found_value] = found[spot].values()
    assert found_value == value(30.0, 10.0, 20.0)
    assert (found_value.median, found_value.low, found_value.high, found_value.times) == (20.0, 10.0, 30.0, 3)


@pytest.mark.parametrize(
    ("measure", "schema", "row", "winner"),
    [
        (LESS, value(10), value(20), "schema"),
        (LESS, value(20), value(10), "row"),
        (MORE, value(10), value(20), "row"),
        (LESS, value(10), value(10.5), None),
        (LESS, value(10, 5, 21), value(20, 20, 30), "schema"),  # slow for a while, and so for both
        (LESS, value(10, 5, 21), value(20, 20, 20), None),
        (MORE, value(10, 10, 10, 21), value(20, times=4), None),
        (MORE, value(10, 10, 10, 10, 10, 21), value(20, times=6), "row"),
        (LESS, value(10, times=1), value(20, times=1), "schema"),
        (LESS, value(0), value(0), None),
    ],
)
def test_who_wins(measure: Measure, schema: Value, row: Value, winner: str | None):
    verdict = compare(measure, 10, {"schema": schema, "row": row}, "schema", "row")

    assert verdict is not None
    assert verdict.winner == winner


def test_a_figure_that_only_explains_has_no_winner():
    explains = Measure(key="mb", title="size", unit="MB", better=None)

    assert compare(explains, 10, {"schema": value(1), "row": value(2)}, "schema", "row") is None
    assert (
        crossovers(explains, {1: {"schema": value(1), "row": value(2)}, 10: {"schema": value(2), "row": value(1)}}, "schema", "row") == []
    )


def test_a_crossover_lies_where_the_lines_cross():
    values = {10: {"schema": value(1), "row": value(10)}, 1000: {"schema": value(10), "row": value(1)}}

    [point] = crossovers(LESS, values, "schema", "row")

    assert math.isclose(point, 100)


def test_a_crossover_is_found_across_a_number_where_nobody_wins():
    values = {
        10: {"schema": value(1), "row": value(2)},
        100: {"schema": value(1.02), "row": value(1)},
        1000: {"schema": value(2), "row": value(1)},
    }

    [point] = crossovers(LESS, values, "schema", "row")

    assert math.isclose(point, 100)


def test_noise_about_even_is_no_crossover():
    values = {10: {"schema": value(1, 0.5, 3), "row": value(2, 2, 2)}, 100: {"schema": value(2), "row": value(1)}}

    assert crossovers(LESS, values, "schema", "row") == []


def test_lines_that_touch_do_not_cross():
    values = {10: {"schema": value(1), "row": value(1.02)}, 100: {"schema": value(1.02), "row": value(1)}}

    assert crossovers(LESS, values, "schema", "row") == []


def test_the_report_says_who_wins_and_by_how_much(tmp_path: Path):
    pytest.importorskip("matplotlib")
    results = Results(tmp_path)
    results.begin(ABOUT)
    for tenants, schema, row in ((10, 900.0, 1000.0), (100, 500.0, 1000.0)):
        for repetition in range(2):
            results.keep(result("schema", tenants, repetition, events_per_second=schema, p99=10.0))
            results.keep(result("row", tenants, repetition, events_per_second=row, p99=25.0))

    text = write_report(results, tmp_path / "report").read_text(encoding="utf-8")

    assert "| Recording events: acknowledged, closed loop | rows 1.11 × | rows 2.00 × |" in text
    assert "| Recording events: p99 at 500 events/s | schemas 2.50 × | schemas 2.50 × |" in text
    assert "Measured from 2026-03-01 00:00 to 2026-03-01 00:00 UTC." in text
    assert "<!--" not in text
    assert (tmp_path / "report" / "plots" / "ingest-events_per_second.svg").read_text(encoding="utf-8").count(
        "rows, row-level security"
    ) == 1


def test_where_the_better_one_has_none_the_report_gives_both_figures(tmp_path: Path):
    pytest.importorskip("matplotlib")
    results = Results(tmp_path)
    results.begin(ABOUT)
    for repetition in range(2):
        results.keep(result("schema", 10, repetition, dimension="memory", all_kb_each=249.0))
        results.keep(result("row", 10, repetition, dimension="memory", all_kb_each=0.0))

    text = write_report(results, tmp_path).read_text(encoding="utf-8")

    assert "| Memory of a backend: kept of a tenant, all tables | rows: 0, not 249 KB |" in text
    assert "Repetitions: 2 at 10 tenants." in text


def test_a_report_of_nothing_is_refused(tmp_path: Path):
    with pytest.raises(InputInvalid, match="no results"):
        write_report(Results(tmp_path), tmp_path)


@pytest.mark.parametrize(("times", "winner"), [(1, None), (3, "row")])
def test_a_single_repetition_proves_less(times: int, winner: str | None):
    verdict = compare(LESS, 10, {"schema": value(13.0, times=times), "row": value(10.0, times=times)}, "schema", "row")

    assert verdict is not None
    assert verdict.winner == winner
