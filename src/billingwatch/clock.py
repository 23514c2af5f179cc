"""The one place that asks what time it is; everything else is handed `as_of`."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    return datetime.now(UTC)


EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)
"""Bounds of a time range that has none: every instant that Python can hold lies between them."""
