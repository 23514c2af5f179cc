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

from billingwatch.lab.isolation import run
from billingwatch.lab.isolation.cell import QUICK
from billingwatch.lab.isolation.dimension import Figures
from billingwatch.lab.isolation.registry import DIMENSIONS
from billingwatch.lab.isolation.results import CELLS, Results
from billingwatch.lab.isolation.summary import Spot, summarize
from billingwatch.lab.isolation.world import Task
from billingwatch.settings import load_settings

GRID = ["--quick", "--tenants", "12", "--repetitions", "1"]
MEASURED = ("catalog", "memory", "blast", "broken", "transfer", "ingest")
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
    wanted = [word for dimension in MEASURED for word in ("--dimension", dimension)]
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


def test_a_broken_migration_is_one_tenants_with_schemas_and_everybodys_with_rows(figure):
    assert figure("broken", "behind", "schema") == pytest.approx(100 / 12)
    assert figure("broken", "behind", "row") == 100


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
    file = measured / CELLS
    kept = file.read_bytes().splitlines()
    [lost] = [line for line in kept if b'"catalog"' in line and b'"row"' in line and b'"each"' in line]
    file.write_bytes(b"".join(line + b"\n" for line in kept if line != lost))

    lab(room, "run", "--out", str(measured), *GRID, "--dimension", "catalog", "--arm", "schema", "--arm", "row")

    *others, new = file.read_bytes().splitlines()
    assert others == [line for line in kept if line != lost]
    assert msgspec.json.decode(new)["cell"] == msgspec.json.decode(lost)["cell"]


def test_a_measurement_that_fails_costs_no_other(room, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(room))
    monkeypatch.setattr(tempfile, "tempdir", None)
    fine = DIMENSIONS["catalog"]

    def fail(task: Task) -> Figures:
        if task.cell.arm == "row" and task.cell.tenants == 1:
            raise RuntimeError
        return fine.measure(task)

    monkeypatch.setattr(run, "DIMENSIONS", {"catalog": msgspec.structs.replace(fine, measure=fail)})
    results, said = Results(tmp_path), []
    scale = msgspec.structs.replace(QUICK, tenants=(1, 2), repetitions=1)
    settings = load_settings({"BILLINGWATCH_DATA_DIR": str(tmp_path)})

    with pytest.raises(run.CellsFailed, match="2 measurements"):
        run.run_experiment(settings, scale, results, dimensions=[fine], arms=["schema", "row"], say=said.append, show=lambda *_: None)

    kept = [(result.cell.arm, result.cell.tenants, result.cell.volume) for result in results.read()]
    assert len(kept) == 6
    assert not [each for each in kept if each[:2] == ("row", 1)]
    assert "failed: RuntimeError: " in said


def test_the_report_is_made_of_the_results(room, measured, figure, tmp_path):
    pytest.importorskip("matplotlib")

    lab(room, "report", "--out", str(measured), "--to", str(tmp_path))

    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"| {figure('catalog', 'relations', 'schema'):,.0f} |" in text
    assert "Recording events" in text
