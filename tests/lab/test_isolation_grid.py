"""Which cells a run of the experiment has, and in which order."""

from __future__ import annotations

from itertools import groupby

import msgspec
import pytest

from billingwatch.errors import InputInvalid
from billingwatch.lab.isolation.arms import ARMS
from billingwatch.lab.isolation.cell import QUICK
from billingwatch.lab.isolation.grid import cells
from billingwatch.lab.isolation.registry import DIMENSIONS
from billingwatch.lab.isolation.results import Results
from billingwatch.lab.isolation.run import run_experiment
from billingwatch.settings import load_settings

SCALE = msgspec.structs.replace(QUICK, tenants=(1, 10), repetitions=3)
EVERYTHING = list(cells(list(DIMENSIONS.values()), SCALE))


def test_no_cell_is_measured_twice():
    assert len({cell.key for cell in EVERYTHING}) == len(EVERYTHING)


def test_arms_that_are_compared_follow_each_other():
    together = groupby(EVERYTHING, key=lambda cell: (cell.dimension, cell.tenants, cell.volume, cell.repetition, cell.choice))

    for (dimension, *_), group in together:
        assert sorted(cell.arm for cell in group) == sorted(DIMENSIONS[dimension].arms)


def test_each_repetition_begins_with_another_arm():
    firsts = {
        cell.repetition: cell.arm
        for cell in reversed(EVERYTHING)
        if (cell.dimension, cell.tenants, cell.volume, cell.choice) == ("ingest", 10, "each", "uniform")
    }

    assert len(set(firsts.values())) == SCALE.repetitions


def test_one_repetition_is_enough_where_each_figure_is_a_sum_over_many_tenants():
    roles = DIMENSIONS["roles"]
    scale = msgspec.structs.replace(SCALE, tenants=(roles.once_from - 1, roles.once_from))
    measured = [(cell.tenants, cell.repetition) for cell in cells([roles], scale, ["schema"])]

    assert measured == [(roles.once_from - 1, 0), (roles.once_from - 1, 1), (roles.once_from - 1, 2), (roles.once_from, 0)]


def test_what_a_tenant_does_to_others_is_not_measured_where_there_are_none():
    alone = {cell.dimension for cell in EVERYTHING if cell.tenants == 1}

    assert set(DIMENSIONS) - alone == {"blast", "broken", "neighbour"}
    assert {cell.dimension for cell in EVERYTHING if cell.tenants == 10} == set(DIMENSIONS)


def test_arms_are_asked_the_same():
    seeds = {(cell.tenants, cell.repetition, cell.seed) for cell in EVERYTHING}

    assert len(seeds) == len(SCALE.tenants) * SCALE.repetitions


def test_worlds_are_made_once_for_each_number_of_tenants_and_volume():
    places = [place for place, _ in groupby(EVERYTHING, key=lambda cell: (cell.tenants, cell.volume))]

    assert len(places) == len(set(places))


def test_dimensions_name_arms_that_there_are():
    for dimension in DIMENSIONS.values():
        assert set(dimension.arms) <= set(ARMS)
        assert {"schema", "row"} <= set(dimension.arms)


def test_every_dimension_says_how_it_is_measured():
    for dimension in DIMENSIONS.values():
        assert len(dimension.method.split()) > 10
        assert len({measure.key for measure in dimension.measures}) == len(dimension.measures)


@pytest.mark.parametrize(
    ("dimension", "arm", "reason", "hint"),
    [
        ("catalog", "pool", "catalog: not measured for pool", "only ingest is"),
        ("neighbour", "row", "neighbour: not measured with so few tenants", "what a tenant does to others takes more of them"),
    ],
)
def test_a_run_without_a_cell_says_what_there_is(tmp_path, dimension, arm, reason, hint):
    settings = load_settings({"BILLINGWATCH_DATA_DIR": str(tmp_path)})

    with pytest.raises(InputInvalid, match=reason) as refused:
        run_experiment(
            settings,
            msgspec.structs.replace(SCALE, tenants=(1,)),
            Results(tmp_path / "out"),
            dimensions=[DIMENSIONS[dimension]],
            arms=[arm],
            say=lambda _: None,
            show=lambda *_: None,
        )

    assert refused.value.hint == hint
    assert list(tmp_path.iterdir()) == []
