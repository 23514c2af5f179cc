"""Spans of time as options take them: `90d`, `12h`, `0`."""

from __future__ import annotations

import re
from datetime import timedelta

import rich_click as click

_SPAN = re.compile(r"(\d{1,6})([mhdw])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class SpanType(click.ParamType[timedelta]):
    """A span up to `longest`; 0 only where `zero` allows it."""

    name = "span"

    def __init__(self, longest: timedelta, *, zero: bool = False) -> None:
        self._longest = longest
        self._zero = zero

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        found = _SPAN.fullmatch(str(value))
        if found is None and str(value) != "0":
            self.fail(f"`{value}` is not a span like `30m`, `12h`, `7d` or `4w`", param, ctx)
        span = timedelta() if found is None else int(found[1]) * _UNITS[found[2]]
        if span > self._longest:
            self.fail(f"`{value}` is longer than {self._longest.days} days", param, ctx)
        if not span and not self._zero:
            self.fail("the span must be longer than 0", param, ctx)
        return span
