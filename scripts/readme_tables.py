"""Write the README's tables of detectors and settings from the code: .venv/bin/python scripts/readme_tables.py"""

from __future__ import annotations

import re
from pathlib import Path
from types import NoneType
from typing import get_args, get_origin

import msgspec

from billingwatch.detection.registry import DETECTORS
from billingwatch.settings import PREFIX, Settings

README = Path(__file__).parents[1] / "README.md"


def detectors() -> str:
    rows = [f"| `{detector.name}` | {detector.description} | {_thresholds(detector.thresholds)} |" for detector in DETECTORS.values()]
    return "\n".join(["| detector | fires when | thresholds |", "|---|---|---|", *rows])


def settings() -> str:
    rows = []
    for field in msgspec.structs.fields(Settings):
        default = "see below" if field.name == "data_dir" else "" if field.default is None else f"`{field.default}`"
        rows.append(f"| `{PREFIX}{field.name.upper()}` | {default} | {_description(field.type)} |")
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def render(readme: str) -> str:
    """The README with both tables as the code has them."""
    for name, table in (("detectors", detectors()), ("settings", settings())):
        readme, count = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda found, table=table: f"{found[1]}{table}\n{found[2]}",
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
