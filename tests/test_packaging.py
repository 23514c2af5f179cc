"""What a newcomer gets: pinned packages, make targets, and a wheel that runs outside of the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+)(?P<marker> ;[^\\]+)? \\$", re.MULTILINE)


def pins(requirements: str) -> set[tuple[str, str]]:
    return {(pin["name"], pin["version"]) for pin in PIN.finditer((CHECKOUT / requirements).read_text())}


def names(declared: list[str | dict[str, str]]) -> set[str]:
    """Of `litestar>=2.25,<3` or `testcontainers[postgres]>=4` only the name."""
    return {re.split(r"[^A-Za-z0-9._-]", entry, maxsplit=1)[0] for entry in declared if isinstance(entry, str)}


def run(*command: str | Path, cwd: Path = CHECKOUT, **environment: str) -> str:
    # Not measured: coverage of an installed copy would count its files as ours.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")} | environment
    completed = subprocess.run(command, cwd=cwd, env=environment, check=False, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", directory, CHECKOUT)
    (built,) = directory.iterdir()
    return built


def test_the_wheel_carries_the_schema_the_statements_and_the_type_marker(wheel: Path) -> None:
    source = CHECKOUT / "src" / "billingwatch"
    beside = {f"billingwatch/{path.relative_to(source)}" for path in source.rglob("*") if path.suffix in {".py", ".sql", ".typed"}}
    schema = {f"billingwatch/{path.relative_to(CHECKOUT)}" for path in (CHECKOUT / "schema").rglob("*.*") if path.suffix in {".py", ".sql"}}

    carried = set(zipfile.ZipFile(wheel).namelist())

    assert {"billingwatch/py.typed", "billingwatch/schema/views/revenue_daily.sql"} <= beside | schema
    assert beside | schema <= carried


def test_the_wheel_carries_nothing_but_the_package(wheel: Path) -> None:
    rooms = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}

    assert wheel.name.startswith("billingwatch_server-")
    assert rooms == {"billingwatch", f"billingwatch_server-{PROJECT['project']['version']}.dist-info"}


def test_the_installed_wheel_finds_its_own_schema(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", tmp_path, wheel)

    found = run(
        sys.executable,
        "-c",
        "from billingwatch.postgres.migrations import head, schema_root; print(schema_root()); print(head('control'), head('tenant'))",
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path),
    )

    root, heads = found.splitlines()
    assert Path(root) == tmp_path / "billingwatch" / "schema"
    assert len(heads.split()) == 2


@pytest.mark.parametrize("requirements", ["requirements.txt", "requirements-dev.txt"])
def test_every_pin_is_exact_and_has_hashes(requirements: str) -> None:
    lines = (CHECKOUT / requirements).read_text().splitlines()

    assert [line for line in lines if not re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) and not PIN.fullmatch(line)] == []
    assert len([line for line in lines if line.endswith("\\")]) == len([line for line in lines if "--hash" in line])


def test_what_the_project_declares_is_pinned() -> None:
    declared = names(PROJECT["project"]["dependencies"]) | names(PROJECT["dependency-groups"]["build"])

    assert declared <= {name for name, _ in pins("requirements.txt")}
    assert names(PROJECT["dependency-groups"]["dev"]) <= {name for name, _ in pins("requirements-dev.txt")}


def test_the_build_backend_is_the_pinned_one() -> None:
    (backend,) = PROJECT["build-system"]["requires"]

    assert tuple(backend.split("==")) in pins("requirements.txt")


def test_tests_run_on_the_versions_that_the_service_runs_on() -> None:
    assert pins("requirements.txt") <= pins("requirements-dev.txt")


def test_make_lists_its_targets() -> None:
    promised = {
        "install",
        "demo",
        "serve",
        "tenant",
        "migrate",
        "migration",
        "test",
        "check",
        "bench",
        "lint",
        "format",
        "typecheck",
        "pins",
        "clean",
    }

    listed = re.findall(r"^  make (\S+) +\S", run("make", "--no-print-directory"), re.MULTILINE)

    assert promised <= set(listed)
