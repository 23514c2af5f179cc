"""Backtest: what a detector would have found with other thresholds, beside what it did find. Nothing is written."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias
from uuid import UUID

import asyncpg
import msgspec

from billingwatch.detection.detector import Detector, Incident, Severity, Thresholds
from billingwatch.detection.engine import beginning, find_incidents
from billingwatch.detection.revision import Found, fingerprint_of, match
from billingwatch.detection.store import Anomaly, Status, list_judged
from billingwatch.errors import BacktestFailed, InputInvalid
from billingwatch.postgres.connections import TenantConnection

ROWS_LIMIT = 500  # incidents that are listed, latest first; all of them are counted

When: TypeAlias = Literal["both", "before", "then"]

_AGO = re.compile(r"([0-9]{1,5})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class BacktestRow(msgspec.Struct, frozen=True, kw_only=True):
    """An incident that fired before, would fire then, or both."""

    when: When
    anomaly_id: UUID | None
    """Of what fired before."""
    status: Status | None
    subject: str
    severity: Severity
    opened_at: datetime
    last_seen_at: datetime
    summary: str
    amounts: dict[str, int]


class Backtest(msgspec.Struct, frozen=True, kw_only=True):
    """What would have been different: `before` is what did fire, `then` what would have with these thresholds."""

    detector: str
    since: datetime
    until: datetime
    thresholds: dict[str, int | float]
    fired_before: int
    would_fire: int
    in_both: int
    only_before: int
    only_then: int
    incidents: list[BacktestRow]
    """Latest first."""


async def backtest(
    tenant: TenantConnection, detector: Detector[Any], thresholds: Thresholds, *, since: datetime, until: datetime
) -> Backtest:
    """Judge a span of history with these thresholds. InputInvalid, BacktestFailed."""
    if since >= until:
        raise InputInvalid(reason="`since` must lie in the past")
    try:
        since = max(since, await beginning(tenant) or until)  # there is nothing before
        incidents = await find_incidents(tenant, detector, thresholds, since=since, until=until)
    except asyncpg.QueryCanceledError as error:
        raise BacktestFailed(detector=detector.name, reason="it takes too long") from error
    except asyncpg.DataError as error:
        raise BacktestFailed(detector=detector.name, reason=str(error)) from error
    stored = await list_judged(tenant, detector.name, since=since, until=until)
    found = [Found(fingerprint=fingerprint_of(detector.name, each), incident=each, ends_at=None) for each in incidents]
    matches, missed = match(found, stored, detector.quiet(thresholds))
    rows = [_row(each.incident, before) for each, before in matches] + [_row(anomaly, anomaly, "before") for anomaly in missed]
    rows.sort(key=lambda row: (row.opened_at, row.subject), reverse=True)
    in_both = sum(before is not None for _, before in matches)
    return Backtest(
        detector=detector.name,
        since=since,
        until=until,
        thresholds=msgspec.structs.asdict(thresholds),
        fired_before=len(stored),
        would_fire=len(incidents),
        in_both=in_both,
        only_before=len(missed),
        only_then=len(incidents) - in_both,
        incidents=rows[:ROWS_LIMIT],
    )


def read_since(text: str, *, as_of: datetime) -> datetime:
    """A moment, or how long ago: `2026-03-01T00:00:00Z`, `2026-03-01`, `36h`, `30d`, `8w`. InputInvalid."""
    try:
        if ago := _AGO.fullmatch(text):
            return as_of - int(ago[1]) * _UNITS[ago[2]]
        at = datetime.fromisoformat(text.replace("\0", "?"))  # it ignores a NUL and what follows
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InputInvalid(reason=f"`since` is a moment like `2026-03-01` or a span like `30d`, not `{text[:40]}`") from None


def _row(seen: Incident | Anomaly, before: Anomaly | None, when: When | None = None) -> BacktestRow:
    return BacktestRow(
        when=when or ("then" if before is None else "both"),
        anomaly_id=before.anomaly_id if before else None,
        status=before.status if before else None,
        subject=seen.subject,
        severity=seen.severity,
        opened_at=seen.opened_at,
        last_seen_at=seen.last_seen_at,
        summary=seen.summary,
        amounts=seen.amounts,
    )
