"""Write the README's tables of detectors and settings from the code, that of isolations from its results: .venv/bin/python scripts/readme_tables.py"""

from __future__ import annotations

import re
from pathlib import Path
from types import NoneType
from typing import get_args, get_origin

import msgspec

from billingwatch.detection.registry import DETECTORS
from billingwatch.lab.isolation.registry import DIMENSIONS
from billingwatch.lab.isolation.results import Results
from billingwatch.lab.isolation.summary import Spot, summarize
from billingwatch.lab.isolation.words import number, table
from billingwatch.settings import PREFIX, Settings

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "docs" / "isolation" / "results"
COUNTS = (1000, 10_000)  # of tenants
MEASURES = (
    ("ingest", "events_per_second"),
    ("processing", "processed_per_second"),
    ("ingest", "backend_mb"),
    ("processing", "backend_mb"),
    ("provision", "rendered"),
    ("migration", "column"),
    ("analyst", "small"),
    ("overview", "again"),
    ("transfer", "remove"),
    ("transfer", "back_at_once"),
    ("neighbour", "refused"),
    ("dump", "seconds"),
    ("upkeep", "recovery"),
)


def detectors() -> str:
    rows = [f"| `{detector.name}` | {detector.description} | {_thresholds(detector.thresholds)} |" for detector in DETECTORS.values()]
    return "\n".join(["| detector | fires when | thresholds |", "|---|---|---|", *rows])


def settings() -> str:
    rows = []
    for field in msgspec.structs.fields(Settings):
        default = "see below" if field.name == "data_dir" else "" if field.default is None else f"`{field.default}`"
        rows.append(f"| `{PREFIX}{field.name.upper()}` | {default} | {_description(field.type)} |")
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def isolation() -> str:
    """What the committed run of the experiment measured, of what decides most."""
    summary = summarize(Results(RESULTS).read())
    rows = []
    for key, name in MEASURES:
        [measure] = [measure for measure in DIMENSIONS[key].measures if measure.key == name]
        found = [summary.get(Spot(dimension=key, measure=name, volume="each", choice="uniform", tenants=count), {}) for count in COUNTS]
        figures = [number(values[arm].median) if arm in values else "–" for values in found for arm in ("schema", "row")]
        if "–" not in figures:
            rows.append([f"{DIMENSIONS[key].title}: {measure.title}, {measure.unit}", *figures])
    return table(["", *(f"{arm}, {count:,}" for count in COUNTS for arm in ("schemas", "rows"))], rows)


def render(readme: str) -> str:
    """The README with all tables as they ought to be."""
    for name, text in (("detectors", detectors()), ("settings", settings()), ("isolation", isolation())):
        readme, count = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda found, text=text: f"{found[1]}{text}\n{found[2]}",
            readme,
            flags=re.DOTALL,
        )
        if count != 1:
            message = f"README.md must mark the place of its table of {name} once"
            raise ValueError(message)
    return readme


def _thresholds(thresholds: type[msgspec.Struct]) -> str:
    return ", ".join(f"`{field.name}` {field.default}" for field in msgspec.structs.fields(thresholds))


def _description(kind: object) -> str:
    for meta in getattr(kind, "__metadata__", ()):
        if isinstance(meta, msgspec.Meta) and meta.description:
            return meta.description
    found = [_description(argument) for argument in get_args(kind) if argument is not NoneType] if get_origin(kind) else []
    return next((text for text in found if text), "")


if __name__ == "__main__":
    README.write_text(render(README.read_text(encoding="utf-8")), encoding="utf-8")
