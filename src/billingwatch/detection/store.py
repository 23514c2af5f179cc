"""The anomalies table: the one module that writes it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias
from uuid import UUID

import msgspec

from billingwatch.clock import EARLIEST, LATEST
from billingwatch.detection.detector import Severity
from billingwatch.errors import AnomalyClosed, AnomalyNotFound
from billingwatch.postgres.connections import TenantConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.tenants import Mute

sql = load_statements(__file__, "store.sql")

SCAN_LIMIT = 2000  # rows that a page reads; a few milliseconds of a read lane
MUTE_CHECKS_LIMIT = 100_000  # comparisons of an anomaly with a mute in one page; 50 ns each

LOWEST = UUID(int=0)

AnomalyKey: TypeAlias = tuple[datetime, UUID]
"""(opened_at, anomaly_id): the order of a listing."""
Status: TypeAlias = Literal["open", "acknowledged", "resolved", "false_positive"]
Resolution: TypeAlias = Literal["automatic", "manual", "retracted"]


class Anomaly(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen, as it is stored."""

    anomaly_id: UUID
    detector: str
    subject: str
    fingerprint: str
    status: Status
    severity: Severity
    summary: str
    opened_at: datetime
    last_seen_at: datetime
    resolved_at: datetime | None
    resolution: Resolution | None
    detected_at: datetime
    updated_at: datetime
    acknowledged_at: datetime | None
    reason: str | None
    amounts: dict[str, int]
    """At risk, in minor units per currency."""
    evidence: dict[str, Any]
    historical: bool = False
    """Found in replayed or long past events: nobody is alerted."""

    @property
    def retracted(self) -> bool:
        """Later events explained it: it never was."""
        return self.resolution == "retracted"

    @property
    def closed_by_person(self) -> bool:
        """A person's word stands whatever the events say."""
        return self.status == "false_positive" or self.resolution == "manual"


class AnomalyFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which anomalies a page shows; `after` is (opened_at, anomaly_id) of the last one of the page before."""

    status: Status | None = None
    severity: Severity | None = None
    detector: str | None = None
    since: datetime | None = None
    """`since` and `until` bound `opened_at`; `until` is exclusive."""
    until: datetime | None = None
    retracted: bool = False
    """Show what later events explained, too."""
    historical: bool | None = None
    muted: bool | None = None
    """Whether one of `mutes` covers it."""
    mutes: tuple[Mute, ...] = ()
    after: AnomalyKey | None = None


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """An anomaly that time ended."""

    anomaly_id: UUID
    detector: str
    severity: Severity
    status: Status
    resolution: Resolution | None
    historical: bool


async def list_anomalies(tenant: TenantConnection, wanted: AnomalyFilter, *, limit: int, floor: AnomalyKey | None = None) -> list[Anomaly]:
    """Return the newest anomalies first, none older than `floor`."""
    rows = await tenant.fetch(
        sql["list_anomalies"],
        wanted.status,
        wanted.severity,
        wanted.detector,
        wanted.since or EARLIEST,
        wanted.until or LATEST,
        wanted.retracted,
        wanted.historical,
        wanted.muted,
        [mute.detector for mute in wanted.mutes],
        [mute.subject for mute in wanted.mutes],
        [mute.since for mute in wanted.mutes],
        [mute.until for mute in wanted.mutes],
        *(wanted.after or (LATEST, LOWEST)),
        *(floor or (EARLIEST, LOWEST)),
        limit,
    )
    return [Anomaly(**dict(row)) for row in rows]


async def page_anomalies(tenant: TenantConnection, wanted: AnomalyFilter, *, limit: int) -> tuple[list[Anomaly], AnomalyKey | None]:
    """Return a page and the `after` of the next one, None on the last.

    No index serves the filters. A page reads at most SCAN_LIMIT rows, and fewer if it compares each with many mutes.
    So it can be short or empty.
    """
    rows = SCAN_LIMIT
    if wanted.muted is not None and wanted.mutes:
        rows = min(rows, max(limit, MUTE_CHECKS_LIMIT // len(wanted.mutes)))
    bounds = (wanted.since or EARLIEST, wanted.until or LATEST, *(wanted.after or (LATEST, LOWEST)))
    row = await tenant.fetchrow(sql["find_scan_floor"], *bounds, rows - 1)
    floor = None if row is None else (row["opened_at"], row["anomaly_id"])
    anomalies = await list_anomalies(tenant, wanted, limit=limit, floor=floor)
    if len(anomalies) == limit:
        return anomalies, (anomalies[-1].opened_at, anomalies[-1].anomaly_id)
    return anomalies, floor


async def list_judged(tenant: TenantConnection, detector: str, *, since: datetime, until: datetime) -> list[Anomaly]:
    """What a detector has found in a time range, oldest first; without what later events explained."""
    return [Anomaly(**dict(row)) for row in await tenant.fetch(sql["list_judged"], detector, since, until)]


async def get_anomaly(tenant: TenantConnection, anomaly_id: UUID) -> Anomaly:
    """One anomaly; AnomalyNotFound."""
    row = await tenant.fetchrow(sql["get_anomaly"], anomaly_id)
    if row is None:
        raise AnomalyNotFound(anomaly_id=anomaly_id)
    return Anomaly(**dict(row))


async def acknowledge(tenant: TenantConnection, anomaly_id: UUID, *, reason: str | None, as_of: datetime) -> Anomaly:
    """Somebody takes care of it; AnomalyNotFound, AnomalyClosed."""
    return await _close(tenant, "acknowledge", "acknowledged", anomaly_id, reason, as_of)


async def resolve(tenant: TenantConnection, anomaly_id: UUID, *, reason: str | None, as_of: datetime) -> Anomaly:
    """A person says that it is over; it stays so. AnomalyNotFound, AnomalyClosed."""
    return await _close(tenant, "resolve", "resolved", anomaly_id, reason, as_of)


async def mark_false_positive(tenant: TenantConnection, anomaly_id: UUID, *, reason: str | None, as_of: datetime) -> Anomaly:
    """A person says that nothing was wrong, even of what is over; it stays so. AnomalyNotFound, AnomalyClosed."""
    return await _close(tenant, "mark_false_positive", "false_positive", anomaly_id, reason, as_of)


async def _close(
    tenant: TenantConnection, statement: str, wanted: Status, anomaly_id: UUID, reason: str | None, as_of: datetime
) -> Anomaly:
    tag = await tenant.execute(sql[statement], anomaly_id, as_of, reason)
    anomaly = await get_anomaly(tenant, anomaly_id)
    if tag == "UPDATE 0":
        raise AnomalyClosed(anomaly_id=anomaly_id, status=anomaly.status, wanted=wanted)
    return anomaly


async def lock_anomalies(
    tenant: TenantConnection, detector: str, fingerprints: Sequence[str], *, since: datetime, until: datetime
) -> list[Anomaly]:
    """Anomalies of a detector that touch a time range or hold one of the fingerprints, oldest first, locked until the transaction ends."""
    rows = await tenant.fetch(sql["lock_anomalies"], detector, fingerprints, since, until)
    return [Anomaly(**dict(row)) for row in rows]


async def put_anomalies(tenant: TenantConnection, anomalies: Sequence[Anomaly]) -> None:
    """Insert, or replace what history says; what a person said is left alone."""
    await tenant.executemany(sql["put_anomaly"], [msgspec.structs.astuple(anomaly) for anomaly in anomalies])


async def delete_anomalies(tenant: TenantConnection, anomaly_ids: Sequence[UUID]) -> None:
    """Delete anomalies that later events explain and nobody was alerted to."""
    await tenant.execute(sql["delete_anomalies"], anomaly_ids)


async def settle_anomalies(tenant: TenantConnection, quiet: dict[str, timedelta], *, as_of: datetime) -> list[Settled]:
    """Resolve what has been quiet for long enough; `quiet` is per detector."""
    rows = await tenant.fetch(sql["settle_anomalies"], list(quiet), list(quiet.values()), as_of)
    return [Settled(**dict(row)) for row in rows]


async def next_settlement(tenant: TenantConnection, quiet: dict[str, timedelta]) -> datetime | None:
    """When the next open anomaly of these detectors will have been quiet for long enough."""
    instant: datetime | None = await tenant.fetchval(sql["next_settlement"], list(quiet), list(quiet.values()))
    return instant
