"""How the report writes numbers."""

from __future__ import annotations

import math

from billingwatch.lab.isolation.summary import Value

DIGITS = 3  # significant ones
WIDE = 0.1  # share of the median, from which on a spread is shown


def number(value: float) -> str:
    """Three significant digits; thousands with commas."""
    if math.isinf(value):
        return "∞"
    if value == 0:
        return "0"
    decimals = max(DIGITS - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{decimals}f}"


def spread(value: Value) -> str:
    """The median, and the least and greatest where they differ by more than a tenth of it."""
    if value.high - value.low <= WIDE * abs(value.median):
        return number(value.median)
    return f"{number(value.median)} ({number(value.low)}–{number(value.high)})"


def times(ratio: float) -> str:
    """A ratio."""
    return f"{number(ratio)} ×"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *rows])
