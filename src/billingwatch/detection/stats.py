"""How well each detector does in the eyes of those who get its anomalies."""

from __future__ import annotations

from datetime import datetime

import msgspec

from billingwatch.detection.registry import DETECTORS
from billingwatch.postgres.connections import TenantConnection
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "stats.sql")

REASONS_LIMIT = 50  # per detector, the most frequent first


class ReasonCount(msgspec.Struct, frozen=True, kw_only=True):
    """Why people called anomalies false positives."""

    reason: str | None
    times: int


class DetectorStats(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a detector's anomalies."""

    detector: str
    fired: int = 0
    """Open, acknowledged, resolved and false positives together; without what later events explained."""
    open: int = 0
    acknowledged: int = 0
    resolved: int = 0
    false_positives: int = 0
    false_positive_reasons: list[ReasonCount] = []
    precision: float | None = None
    """1 - false positives / fired; null while nothing has fired."""


async def count_by_detector(tenant: TenantConnection, *, since: datetime | None) -> list[DetectorStats]:
    """Of anomalies opened since then, or ever; detectors that found nothing are here too, and those that only earlier releases had."""
    counted = {row["detector"]: dict(row) for row in await tenant.fetch(sql["count_by_detector"], since)}
    reasons: dict[str, list[ReasonCount]] = {}
    for row in await tenant.fetch(sql["count_reasons"], since, REASONS_LIMIT):
        reasons.setdefault(row["detector"], []).append(ReasonCount(reason=row["reason"], times=row["times"]))
    return [
        DetectorStats(
            **counts,
            false_positive_reasons=reasons.get(name, []),
            precision=round(1 - counts["false_positives"] / counts["fired"], 4) if counts.get("fired") else None,
        )
        for name in [*DETECTORS, *sorted(set(counted) - set(DETECTORS))]
        for counts in (counted.get(name, {"detector": name}),)
    ]
