"""Time as a business feels it: hours of the day, days of the week, months of unequal length."""

from __future__ import annotations

import calendar
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random

HOUR = 3600
DAY = 24 * HOUR
BUSIEST_HOUR = 15  # UTC
DAILY_SWING = 0.8  # 0: every hour alike; 1: nobody buys in the small hours
SATURDAY = 5
MONTH_END = 27  # the day of the month with which its end begins
HOLIDAYS = frozenset(
    {(1, 1), (1, 6), (4, 6), (5, 1), (5, 14), (5, 25), (7, 4), (7, 14), (8, 15), (9, 7), (10, 3), (11, 1), (11, 26), (12, 25), (12, 26)}
)


def moment(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def day_start(at: int) -> int:
    return at - at % DAY


def intensity(at: int, weekend: float) -> float:
    """Tell how busy an hour is; the mean over a week is 1."""
    when = moment(at)
    daily = 1 + DAILY_SWING * math.cos((when.hour - BUSIEST_HOUR) * math.tau / 24)
    weekly = weekend if when.weekday() >= SATURDAY else 1.0
    return daily * weekly * 7 / (5 + 2 * weekend)


def season(at: int, holiday: float, month_end: float) -> float:
    """Tell how busy a day of the year is besides its weekday."""
    when = moment(at)
    return (holiday if (when.month, when.day) in HOLIDAYS else 1.0) * (month_end if when.day >= MONTH_END else 1.0)


def arrivals(rng: Random, start: int, end: int, per_second: float) -> Iterator[int]:
    """Give the instants of a Poisson process."""
    at = float(start)
    while per_second > 0 and (at := at + rng.expovariate(per_second)) < end:
        yield int(at)


def months_later(at: int, months: int, anchor_day: int) -> int:
    """Move by whole months, keeping to the anchor's day where the month has one (31 January, 28 February, 31 March)."""
    when = moment(at)
    year, month = divmod(when.year * 12 + when.month - 1 + months, 12)
    day = min(anchor_day, calendar.monthrange(year, month + 1)[1])
    return int(when.replace(year=year, month=month + 1, day=day).timestamp())
