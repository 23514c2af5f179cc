"""The README says what the code does."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

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


def test_the_tables_of_detectors_and_settings_are_those_of_the_code(tables: ModuleType) -> None:
    assert tables.render(README) == README, "run `.venv/bin/python scripts/readme_tables.py`"


def test_every_make_target_that_is_named_exists() -> None:
    known = set(
        re.findall(
            r"^  make (\S+)", subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout, re.MULTILINE
        )
    )

    named = set(re.findall(r"`?make ([a-z-]+)", README))

    assert named <= known


def test_every_view_is_named() -> None:
    for view in (ROOT / "schema" / "views").glob("*.sql"):
        assert f"`{view.stem}`" in README
