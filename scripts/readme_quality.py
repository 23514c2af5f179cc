"""Write the README's table of measured quality from a report: .venv/bin/python scripts/readme_quality.py DIR/report.json"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec

from billingwatch.lab.quality.report import Report
from billingwatch.lab.quality.words import markdown

README = Path(__file__).parents[1] / "README.md"


def render(readme: str, report: Report) -> str:
    """The README with the figures of the report; those of tuning seeds do not belong there."""
    if report.wish.tuning:
        message = "this report is of tuning seeds; run `make detection-report ARGS='--out DIR'`"
        raise ValueError(message)
    readme, count = re.subn(
        r"(<!-- detection report -->\n).*?(<!-- /detection report -->)",
        lambda found: f"{found[1]}{markdown(report)}\n{found[2]}",
        readme,
        flags=re.DOTALL,
    )
    if count != 1:
        message = "README.md must mark the place of the detection report once"
        raise ValueError(message)
    return readme


if __name__ == "__main__":
    found = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Report)
    README.write_text(render(README.read_text(encoding="utf-8"), found), encoding="utf-8")
