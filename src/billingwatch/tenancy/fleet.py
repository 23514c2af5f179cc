"""The fleet's migration: the control plane, then every tenant that is behind, canaries first, several at a time.

Where a tenant is, its row in the control plane says, which changes in the transaction that changes its schema: a run that is killed is resumed by
the next one. A tenant that fails is left whole and reported, and the others go on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Literal

import asyncpg
import msgspec

from billingwatch.errors import DatabaseUnavailable, MigrationRunning, SchemaOutdated
from billingwatch.postgres import migrations
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.revisions import RevisionUnknown, way_back
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.analysts import end_readers
from billingwatch.tenancy.fleet_plan import Options, find_together, last_failures, make_way, survey
from billingwatch.tenancy.isolation import Isolation
from billingwatch.tenancy.lanes import Lane
from billingwatch.tenancy.migrate import ensure_control_plane
from billingwatch.tenancy.shared import SharedSchema, migrate_shared
from billingwatch.tenancy.tenant_migration import Behind, Mover, Overtaken

sql = load_statements(__file__, "fleet.sql")

ATTEMPTS = 8  # at a tenant whose tables are in use, or at the control plane; between two the others are migrated
ENDING_ATTEMPTS = 2  # the last ones, before which sessions of analysts that use the tables are ended
WAIT_FIRST = 0.1  # seconds before the second attempt, doubled for each further one
WAIT_MOST = 2.0  # seconds
STATEMENT_TIMEOUT = 3600  # seconds

IN_USE = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)


class Migrated(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one tenant; `error` is None when it is where it was to be taken."""

    name: str
    from_revision: str
    to_revision: str
    error: str | None
    attempts: int = 1


class Outcome(msgspec.Struct, kw_only=True):
    """What became of a run. `total` tenants were behind; those without a result were not tried. `together`: one result is that of all tenants."""

    control_from: str | None
    control_to: str
    total: int = 0
    together: bool = False
    results: list[Migrated] = msgspec.field(default_factory=list)
    stopped_by: Literal["canary", "max_failures"] | None = None

    @property
    def failed(self) -> list[Migrated]:
        return [result for result in self.results if result.error is not None]


async def migrate_fleet(
    control: ControlConnection, dsn: str, options: Options, on_progress: Callable[[int, int], None] = lambda *_: None
) -> Outcome:
    """Migrate; `on_progress` hears how many tenants are settled, of how many.

    Raises MigrationRunning, TenantNotFound, InputInvalid, SchemaOutdated, DatabaseUnavailable; whatever was done by then stays done.
    """
    head = migrations.head("control")
    found = await survey(control, options)
    if found.control_revision is None:
        await ensure_control_plane(control, isolation=options.isolation, partitions=options.partitions)
        return Outcome(control_from=None, control_to=head)
    if found.alone is False:
        raise MigrationRunning
    outcome = Outcome(control_from=found.control_revision, control_to=head, total=len(found.tenants))
    if found.alone is None:
        return outcome
    try:
        if found.control_revision != head:
            await _upgrade_control_plane(control, options.isolation)
        shared = await find_together(control, options) if found.tenants else None
        if shared is not None:
            await _migrate_together(control, shared, options, outcome)
        elif found.tenants:
            await _Run(control, dsn, options, outcome, on_progress).run(found.tenants)
        if found.tenants:
            await control.execute(sql["make_durable"])
    finally:
        if not control.is_closed():
            await make_way(control)
    return outcome


async def _upgrade_control_plane(control: ControlConnection, isolation: Isolation) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await ensure_control_plane(control, isolation=isolation, upgrade=True)
        except IN_USE as error:
            if attempt == ATTEMPTS:
                raise DatabaseUnavailable(
                    reason=f"the control plane is in use: {error}", hint="run it again when less is going on"
                ) from error
            await _pause(attempt)
        else:
            return


async def _migrate_together(control: ControlConnection, shared: SharedSchema, options: Options, outcome: Outcome) -> None:
    """Tables that all tenants share are one unit: nobody is first, and nobody is left behind."""
    outcome.total, outcome.together = 1, True
    to = way_back("tenant").to if options.back else migrations.head("tenant")
    error: str | None = None
    for attempt in range(1, ATTEMPTS + 1):
        try:
            if attempt > ATTEMPTS - ENDING_ATTEMPTS:
                await end_readers(control, shared.plane.schema_name)
            await migrate_shared(control, shared, back=options.back)
        except IN_USE as failure:
            error = f"the tables are in use: {failure}"
            if attempt < ATTEMPTS:
                await _pause(attempt)
        except (asyncpg.PostgresError, SchemaOutdated) as failure:
            error = str(failure)
            break
        else:
            error = None
            break
    name = shared.plane.schema_name
    outcome.results.append(Migrated(name=name, from_revision=shared.revision, to_revision=to, error=error, attempts=attempt))


class _Run:
    """Works through the tenants in rounds: those whose tables are in use come again when all others have had their turn."""

    def __init__(
        self, control: ControlConnection, dsn: str, options: Options, outcome: Outcome, on_progress: Callable[[int, int], None]
    ) -> None:
        self._control = control
        self._options = options
        self._outcome = outcome
        self._on_progress = on_progress
        self._mover = Mover(dsn, back=options.back)
        self._failures = 0
        self._recording = asyncio.Lock()
        self._lanes = [
            Lane(dsn, f"migrate {number}", tenants_limit=options.tenants_limit, statement_timeout=STATEMENT_TIMEOUT)
            for number in range(options.jobs)
        ]

    async def run(self, tenants: Sequence[Behind]) -> None:
        failed_before = await last_failures(self._control)
        # Last, so that those that fail each time do not use up the failures that a run may have.
        tenants = sorted(tenants, key=lambda tenant: tenant.tenant_id in failed_before)
        self._on_progress(0, self._outcome.total)
        async with AsyncExitStack() as stack:
            for lane in self._lanes:
                stack.push_async_callback(lane.close)
            for canary in tenants[: self._options.canary]:
                await self._work_through([canary], self._lanes[:1])
                if self._failures:
                    self._outcome.stopped_by = "canary"
                    return
            await self._work_through(tenants[self._options.canary :], self._lanes)

    async def _work_through(self, tenants: Sequence[Behind], lanes: Sequence[Lane]) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            in_use: list[Behind] = []
            work = iter(tenants)
            try:
                async with asyncio.TaskGroup() as group:
                    for lane in lanes:
                        group.create_task(self._job(lane, work, attempt, in_use))
            except ExceptionGroup as failures:
                unavailable = failures.subgroup(DatabaseUnavailable)
                if unavailable is None:
                    raise
                raise unavailable.exceptions[0] from None
            if not in_use or self._outcome.stopped_by is not None:
                return
            tenants = in_use
            await _pause(attempt)

    async def _job(self, lane: Lane, work: Iterator[Behind], attempt: int, in_use: list[Behind]) -> None:
        for tenant in work:
            try:
                async with lane.hold() as connection:
                    lane.touched([tenant.schema_name])
                    if attempt > ATTEMPTS - ENDING_ATTEMPTS:
                        await end_readers(ControlConnection(connection), tenant.schema_name)
                    await self._mover.move(connection, tenant)
            except IN_USE as error:
                if attempt < ATTEMPTS:
                    in_use.append(tenant)
                    continue
                await self._settle(tenant, attempt, f"its tables are in use: {error}")
            except RevisionUnknown:
                await self._settle(tenant, attempt, f"its schema is at {tenant.revision}, which this release does not know")
            except Overtaken:
                await self._settle(tenant, attempt)
            except DatabaseUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - an online revision may raise anything, and the others must go on
                told = str(error) if isinstance(error, asyncpg.PostgresError) else f"{type(error).__name__}: {error}"
                await self._settle(tenant, attempt, told)
            else:
                await self._settle(tenant, attempt)
            if self._outcome.stopped_by is not None:
                return

    async def _settle(self, tenant: Behind, attempts: int, error: str | None = None) -> None:
        wanted = self._mover.wanted
        self._outcome.results.append(
            Migrated(name=tenant.name, from_revision=tenant.revision, to_revision=wanted, error=error, attempts=attempts)
        )
        self._on_progress(len(self._outcome.results), self._outcome.total)
        if error is not None:
            self._failures += 1
            if self._failures >= self._options.max_failures:
                self._outcome.stopped_by = "max_failures"
            await self._record_failure(tenant, wanted, error)

    async def _record_failure(self, tenant: Behind, wanted: str, error: str) -> None:
        async with self._recording:  # the jobs share the connection
            await self._control.execute(sql["record_failure"], tenant.tenant_id, wanted, error)


async def _pause(attempt: int) -> None:
    """Longer each time, and never twice the same, so that nobody meets the same holder in step."""
    await asyncio.sleep(min(WAIT_FIRST * 2 ** (attempt - 1), WAIT_MOST) * random.uniform(0.5, 1.5))  # noqa: S311 - guards nothing
