"""The README says what the code does."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from billingwatch.billing.readers import READERS, read_event
from billingwatch.detection.registry import DETECTORS
from billingwatch.lab.isolation.report import write_report
from billingwatch.lab.isolation.results import Results
from billingwatch.simulate.incidents.registry import INCIDENTS
from billingwatch.simulate.profiles import PROFILES
from billingwatch.simulate.stream import simulate

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_tables", ROOT / "scripts" / "readme_tables.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_code_and_of_the_results(tables: ModuleType) -> None:
    assert tables.render(README) == README, "run `.venv/bin/python scripts/readme_tables.py`"


def test_the_report_of_the_isolations_says_what_its_results_say(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    directory = ROOT / "docs" / "isolation"

    written = write_report(Results(directory / "results"), tmp_path)

    assert written.read_bytes() == (directory / "report.md").read_bytes(), "run `billingwatch lab report` again"
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {path.name for path in (directory / "plots").iterdir()}


def test_every_make_target_that_is_named_exists() -> None:
    known = set(
        re.findall(
            r"^  make (\S+)", subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout, re.MULTILINE
        )
    )

    named = set(re.findall(r"`?make ([a-z-]+)", README))

    assert named <= known


def test_how_often_time_is_judged_is_told() -> None:
    steps = {detector.name: detector.every for detector in DETECTORS.values() if detector.every is not None}

    daily = {name for name, step in steps.items() if step != timedelta(hours=1)}

    assert {name: steps[name] for name in daily} == {"card_expiry": timedelta(days=1)}
    [told] = re.findall(r"those that judge time itself \((.+?)\) do so once an hour, expiring cards once a day", README, re.DOTALL)
    assert len(told.split(",")) == len(steps) - len(daily)


def test_every_view_is_named() -> None:
    for view in (ROOT / "schema" / "views").glob("*.sql"):
        assert f"`{view.stem}`" in README


def test_stripe_is_asked_for_every_event_that_is_read() -> None:
    [advice] = re.findall(r"Subscribe it to (.+?)\.\s+Any API version", README, re.DOTALL)
    types = re.findall(r"`([a-z_.]+(?:\.\*)?)`", advice)
    read: dict[str, str] = {}
    for shape in ("current", "legacy"):
        profile = msgspec.structs.replace(PROFILES["shop"], shape=shape, customers=80, disputes=0.02, refunds=0.1, subscribed=0.5)
        events, _ = simulate(seed=11, start=datetime(2026, 1, 5, tzinfo=UTC), days=14, profile=profile, incidents=sorted(INCIDENTS))
        read |= {each["type"]: each["data"]["object"]["object"] for each in events if read_event(each)}

    assert {name for name in read if not any(fnmatchcase(name, wanted) for wanted in types)} == set()
    # Of the rest nothing is sent with an event's own object: cards and sources are told of by their customer. The name of an early fraud
    # warning until 2019 occurs in old events alone.
    assert set(READERS) - set(read.values()) <= {"card", "source", "payment_intent", "issuer_fraud_record"}
