"""The experiment end to end, tiny: both isolations of the product side by side. Orderings are compared, never times."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from billingwatch.lab.isolation.results import Results
from billingwatch.lab.isolation.summary import Spot, summarize

GRID = ["--quick", "--tenants", "12", "--repetitions", "1"]
DIMENSIONS = ("catalog", "memory", "blast", "transfer", "ingest")
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    """A directory for temporary files, which must be empty in the end; the embedded server's user may pass through."""
    room = Path(tempfile.mkdtemp(prefix="billingwatch-lab-"))
    room.chmod(0o711)
    yield room
    left = list(room.iterdir())
    shutil.rmtree(room)
    assert left == []


def lab(room: Path, *arguments: str) -> str:
    environ = {**os.environ, "TMPDIR": str(room)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "billingwatch", "lab", *arguments], env=environ, capture_output=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stderr.decode()


@pytest.fixture(scope="module")
def measured(room: Path) -> Iterator[Path]:
    """A run of the two arms that the report compares."""
    out = Path(tempfile.mkdtemp(prefix="billingwatch-results-"))
    wanted = [word for dimension in DIMENSIONS for word in ("--dimension", dimension)]
    lab(room, "run", "--out", str(out), *GRID, *wanted, "--arm", "schema", "--arm", "row")
    yield out
    shutil.rmtree(out)


@pytest.fixture
def figure(measured: Path):
    summary = summarize(Results(measured).read())

    def find(dimension: str, measure: str, arm: str) -> float:
        return summary[Spot(dimension=dimension, measure=measure, volume="each", choice="uniform", tenants=12)][arm].median

    return find


def test_no_mistake_shows_a_strangers_row_in_either_isolation(figure):
    for mistake in ("read", "written", "unscoped", "analyst"):
        assert figure("blast", mistake, "schema") == figure("blast", mistake, "row") == 0


def test_schemas_cost_catalog_and_memory_that_rows_do_not(figure):
    for dimension, measure in (("catalog", "relations"), ("catalog", "files"), ("memory", "all_kb_each")):
        assert figure(dimension, measure, "schema") > figure(dimension, measure, "row")


def test_a_removed_schema_gives_its_space_back_at_once_and_removed_rows_do_not(figure):
    assert figure("transfer", "back_at_once", "schema") > figure("transfer", "back_at_once", "row")


def test_both_record_events(figure):
    for arm in ("schema", "row"):
        assert figure("ingest", "events_per_second", arm) > 0
        assert figure("ingest", "p99", arm) > 0


def test_a_run_goes_on_where_it_stood(room, measured):
    cells = sorted((measured / "cells").iterdir())
    kept = {path.name: path.read_bytes() for path in cells}
    lost = next(path for path in cells if path.name.startswith("catalog-row"))
    lost.unlink()

    lab(room, "run", "--out", str(measured), *GRID, "--dimension", "catalog", "--arm", "schema", "--arm", "row")

    now = {path.name: path.read_bytes() for path in sorted((measured / "cells").iterdir())}
    assert now.keys() == kept.keys()
    assert [name for name in kept if now[name] != kept[name]] == [lost.name]


def test_the_report_is_made_of_the_results(room, measured, tmp_path):
    pytest.importorskip("matplotlib")

    lab(room, "report", "--out", str(measured), "--to", str(tmp_path))

    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    relations = msgspec.json.decode((measured / "cells" / "catalog-schema-12-uniform-each-0.json").read_bytes())["figures"]["relations"]
    assert f"| {relations:,.0f} |" in text
    assert "Recording events" in text
