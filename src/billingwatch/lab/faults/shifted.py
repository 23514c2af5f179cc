"""`python -m billingwatch.lab.faults.shifted …`: run `billingwatch …` with its clock ahead.

A file holds the seconds, and may change while the service runs.
"""

from __future__ import annotations

import os
import runpy
from datetime import datetime, timedelta
from pathlib import Path

from billingwatch import clock

OFFSET_FILE = "BENCH_CLOCK_OFFSET"  # environment variable: path of the file


def main() -> None:
    right, file = clock.utc_now, Path(os.environ[OFFSET_FILE])

    def shifted_now() -> datetime:
        # The file is empty for a moment when it is written.
        return right() + timedelta(seconds=float(file.read_text(encoding="ascii") or 0))

    # Before any module is imported that imports the function by name.
    clock.utc_now = shifted_now
    runpy.run_module("billingwatch", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
