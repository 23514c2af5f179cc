"""Traces of refused deliveries and of events of the other mode: counted in memory, written every few seconds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from billingwatch import errors, metrics
from billingwatch.log_limit import LogLimit
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.lanes import Lane, control_plane
from billingwatch.tenancy.periodic_write import FLUSH_SECONDS, PeriodicWrite
from billingwatch.tenancy.tenants import Tenant, TenantId

sql = load_statements(__file__, "activity.sql")

LOCK_WAIT = "200ms"  # for a tenant's row
TENANTS_LIMIT = 50_000  # with counts that are not written yet; those of further tenants are only logged
TEXT_LIMIT = 300  # characters of a refusal

# Reasons are labels of a metric and keys of log lines. The first class that matches gives the reason.
_REASONS: tuple[tuple[type[errors.BillingWatchError], str], ...] = (
    (errors.SignatureOutOfTime, "clock_out_of_tolerance"),
    (errors.SignatureInvalid, "signature_invalid"),
    (errors.SignaturesLimited, "signatures_limited"),
    (errors.TenantUnconfigured, "no_signing_secret"),
    (errors.RateLimited, "rate_limited"),
    (errors.EventMalformed, "malformed"),
    (errors.BodyTooLarge, "body_too_large"),
    (errors.BodiesFull, "bodies_full"),
    (errors.Overloaded, "overloaded"),
    (errors.TenantBeingRemoved, "tenant_being_removed"),
    (errors.WebhookTokenUnknown, "unknown_token"),
)


class _Counts:
    """Counts to add to a tenant's row."""

    __slots__ = ("ignored", "last_ignored_at", "last_refusal", "last_refused_at", "refused")

    def __init__(self) -> None:
        self.refused = 0
        self.last_refused_at: datetime | None = None
        self.last_refusal: str | None = None
        self.ignored = 0
        self.last_ignored_at: datetime | None = None

    def add_older(self, older: _Counts) -> None:
        self.refused += older.refused
        self.ignored += older.ignored
        if self.last_refused_at is None:
            self.last_refused_at, self.last_refusal = older.last_refused_at, older.last_refusal
        if self.last_ignored_at is None:
            self.last_ignored_at = older.last_ignored_at


class Activity:
    """Counts per tenant, and the task that adds them to `control.ingest_activity`.

    While the database is away the counts are kept.
    """

    def __init__(self, lane: Lane, clock: Callable[[], datetime], *, flush_seconds: float = FLUSH_SECONDS) -> None:
        self._lane = lane
        self._clock = clock
        self._counts: dict[TenantId, _Counts] = {}
        self._log = LogLimit()
        self._writes = PeriodicWrite("ingest activity", self.flush, failed="ingest.activity_not_written", seconds=flush_seconds)

    def start(self) -> None:
        self._writes.start()

    async def close(self) -> None:
        """Write the counts once more, if the database is there."""
        await self._writes.close()

    def refused(self, tenant: Tenant | None, error: errors.BillingWatchError) -> None:
        """Count and log a refused delivery. Without a tenant it is only logged."""
        reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), type(error).__name__)
        if tenant is None:
            self._log.warning("ingest.delivery_refused", cause=reason, reason=reason, detail=str(error))
            return
        self._log.warning("ingest.delivery_refused", cause=(tenant.tenant_id, reason), tenant=tenant.name, reason=reason, detail=str(error))
        metrics.refused.labels(reason).inc()
        if (counts := self._of(tenant.tenant_id)) is not None:
            counts.refused += 1
            counts.last_refused_at = self._clock()
            counts.last_refusal = f"{reason}: {error}".replace("\0", "")[:TEXT_LIMIT]

    def ignored(self, tenant: Tenant) -> None:
        """Count an event that was recorded and is not processed, because its mode is not the tenant's."""
        if (counts := self._of(tenant.tenant_id)) is not None:
            counts.ignored += 1
            counts.last_ignored_at = self._clock()

    async def flush(self) -> None:
        """Add the counts to the tenants' rows. They are kept if that fails.

        Raises DatabaseUnavailable, asyncpg.PostgresError.
        """
        if not self._counts:
            return
        written, self._counts = self._counts, {}
        try:
            async with control_plane(self._lane) as connection, connection.transaction():
                await connection.execute(sql["limit_lock_wait"], LOCK_WAIT)
                await _add_activity(connection, written)
        except BaseException:
            for tenant_id, older in written.items():
                self._counts.setdefault(tenant_id, _Counts()).add_older(older)
            raise

    def _of(self, tenant_id: TenantId) -> _Counts | None:
        counts = self._counts.get(tenant_id)
        if counts is None and len(self._counts) < TENANTS_LIMIT:
            counts = self._counts[tenant_id] = _Counts()
        return counts


async def _add_activity(connection: ControlConnection, counts: dict[TenantId, _Counts]) -> None:
    rows = list(counts.items())
    await connection.execute(
        sql["add_activity"],
        [tenant_id for tenant_id, _ in rows],
        [row.refused for _, row in rows],
        [row.last_refused_at for _, row in rows],
        [row.last_refusal for _, row in rows],
        [row.ignored for _, row in rows],
        [row.last_ignored_at for _, row in rows],
    )
