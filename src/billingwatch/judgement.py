"""The detectors' part of a visit: what changed, what time asks for, and what was postponed.

A detector that fails must not hold up events. The visit is rolled back and done again with each detector guarded by a savepoint: the
projection commits, and with it a row of control.due_visits that says from when on that detector must judge again. Until it is due, visits
do not ask the detector, and only note if something changed that lies earlier still; then it judges all of that, or is postponed again.
So a visit in which nothing fails pays nothing, and one that does pays once in a while, however many events arrive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType

import msgspec

from billingwatch.billing.rows import Row
from billingwatch.billing.store import Change
from billingwatch.detection.detector import LATENESS
from billingwatch.detection.engine import beginning, detect, judge_slice, judge_time, rejudge, settle
from billingwatch.detection.looks import BEGINNING, END, shift
from billingwatch.detection.outcome import DetectionOutcome
from billingwatch.detection.registry import DETECTORS
from billingwatch.detection.tuning import tuning_of
from billingwatch.postgres.connections import TenantConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.tenants import Tenant

sql = load_statements(__file__, "judgement.sql")

JUDGED_EVERY = timedelta(hours=1)  # the finest grid of a detector of time
JUDGED_WITHIN = timedelta(minutes=5)  # of the hour; spreads the visits of a fleet
REJUDGED_AFTER = timedelta(minutes=10)  # after a detector failed; data that stops it now may stop it again
SLICE = timedelta(weeks=1)  # of event time that a detector evaluates in one transaction
HISTORY = "history"  # the kind of a due visit: rows arrived late, so what follows them is to be evaluated again
REJUDGE = "rejudge:"  # and the detector's name: the kind of a due visit
SETTLED_WITHIN = timedelta(hours=1)  # at most, until a visit checks again whether an anomaly has ended
CLOCKS_DIFFER = timedelta(minutes=5)  # at most, between the processes of a fleet
INTERVALS = MappingProxyType({"evaluate": JUDGED_EVERY + JUDGED_WITHIN, "settle": SETTLED_WITHIN})
"""How far ahead a visit of each kind is planned; other kinds: `REJUDGED_AFTER`."""
FURTHEST = max(*INTERVALS.values(), REJUDGED_AFTER) + CLOCKS_DIFFER
"""No visit is planned later than this. A visit that is due later was planned before the clock was set back."""
BEHIND_AFTER = 2 * JUDGED_EVERY + JUDGED_WITHIN  # a detector of time that has evaluated everything up to then is up to date
FIRST_JUDGED_AFTER = timedelta(minutes=5)  # so that a history which is being replayed is judged when it is complete


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """What time asks of the tenant."""

    kind: str
    due_at: datetime
    since: datetime | None

    def at(self, as_of: datetime) -> bool:
        """Return True when the visit is due: its time has come, or lies further ahead than its kind plans."""
        interval = INTERVALS.get(self.kind, REJUDGED_AFTER)
        return self.due_at <= as_of or self.due_at > as_of + interval + CLOCKS_DIFFER


class Judge:
    """The detectors' part of a visit: what changed, what time asks for, and what was postponed."""

    def __init__(self, connection: TenantConnection, tenant: Tenant, due: Mapping[str, Due], as_of: datetime, *, guarded: bool) -> None:
        self.outcomes: list[DetectionOutcome] = []
        self._connection = connection
        self._tenant = tenant
        self._tuning = tuning_of(tenant)
        self._as_of = as_of
        self._guarded = guarded
        self._settlement = due.get("settle")
        self._judgement = due.get("evaluate")
        self._history = due.get(HISTORY)
        self._late_before: datetime | None = None
        self._late: set[tuple[str, str]] = set()
        self.behind = False
        """A detector has more to evaluate than one transaction may: the visit is to be repeated at once."""
        self._waiting = {kind.removeprefix(REJUDGE): each for kind, each in due.items() if kind.startswith(REJUDGE)}

    @property
    def _judged_until(self) -> datetime | None:
        return self._judgement.since if self._judgement else None

    async def expect(self, rows: Sequence[Row]) -> None:
        """Note, before they are projected, which rows come later than Stripe delivers: detectors compared without them."""
        oldest = min((row.updated_at for row in rows), default=self._as_of)
        if oldest >= self._as_of - LATENESS:
            return
        newest = await self._connection.fetchval(sql["newest"], self._as_of)
        if newest is not None and oldest < newest - LATENESS:
            self._late_before = newest - LATENESS
            self._late = {(row.table, row.key) for row in rows if row.updated_at < self._late_before}

    async def changes(self, changes: Sequence[Change], *, replayed: bool) -> None:
        """Judge what changed."""
        late = [change.created_at for change in changes if self._is_late(change)]
        if late:
            await self._connection.execute(sql["plan_history"], self._tenant.tenant_id, self._as_of + FIRST_JUDGED_AFTER, min(late))
            self._history = Due(
                kind=HISTORY,
                due_at=self._as_of + FIRST_JUDGED_AFTER,
                since=min([*late, *([self._history.since] if self._history and self._history.since else [])]),
            )
        outcome = await detect(
            self._connection,
            changes,
            as_of=self._as_of,
            tuning=self._tuning,
            judged_until=self._judged_until,
            replayed=replayed,
            postponed=self._waiting,
            guarded=self._guarded,
        )
        self.outcomes.append(outcome)
        for each in outcome.postponed:
            if each.error is None:
                waiting = self._waiting[each.detector]
                self._waiting[each.detector] = msgspec.structs.replace(waiting, since=min(waiting.since or each.since, each.since))
                await self._connection.execute(sql["widen"], self._tenant.tenant_id, waiting.kind, each.since)

    async def postponed(self, *, now: bool, complete: bool) -> None:
        """Let postponed detectors evaluate the next slice of what they have not evaluated, when that is due or with `now`.

        Without `complete` more events wait, which may lie in that slice.
        """
        for name, waiting in list(self._waiting.items()):
            if self._may_evaluate(waiting, now=now, complete=complete):
                await self._rejudge(name, waiting, replayed=now)

    def _may_evaluate(self, waiting: Due, *, now: bool, complete: bool) -> bool:
        """Return whether a slice is due. A backlog of events delays it by REJUDGED_AFTER at most."""
        overdue = waiting.due_at <= self._as_of - REJUDGED_AFTER
        return (now or waiting.at(self._as_of)) and (complete or overdue)

    async def _rejudge(self, name: str, waiting: Due, *, replayed: bool) -> None:
        since = max(waiting.since or BEGINNING, await beginning(self._connection) or END)
        until = shift(since, SLICE)
        if until >= self._as_of:
            until = END
        outcome = await rejudge(
            self._connection,
            name,
            since=since,
            until=until,
            judged_until=self._judged_until,
            as_of=self._as_of,
            tuning=self._tuning,
            replayed=replayed,
        )
        self.outcomes.append(outcome)
        if outcome.postponed:
            return
        if until == END:
            del self._waiting[name]
            await self._connection.execute(sql["rejudged"], self._tenant.tenant_id, waiting.kind)
        else:
            self.behind = True
            self._waiting[name] = msgspec.structs.replace(waiting, since=until)
            await self._connection.execute(sql["advance"], self._tenant.tenant_id, waiting.kind, self._as_of, until)

    def _is_late(self, change: Change) -> bool:
        if self._late_before is None:
            return False
        return (change.table, change.key) in self._late or (change.table.endswith("_states") and change.created_at < self._late_before)

    async def history(self, *, now: bool, complete: bool) -> None:
        """Let all detectors evaluate the next slice of what follows rows that arrived late, when that is due or with `now`."""
        history = self._history
        if history is None or not self._may_evaluate(history, now=now, complete=complete):
            return
        since = max(history.since or BEGINNING, await beginning(self._connection) or END)
        until = shift(since, SLICE)
        if until >= self._as_of:
            until = END
        outcome = await judge_slice(
            self._connection,
            since=since,
            until=until,
            judged_until=self._judged_until,
            as_of=self._as_of,
            tuning=self._tuning,
            replayed=now,
            postponed=self._waiting,
        )
        self.outcomes.append(outcome)
        if until == END:
            await self._connection.execute(sql["rejudged"], self._tenant.tenant_id, HISTORY)
        else:
            self.behind = True
            await self._connection.execute(sql["advance"], self._tenant.tenant_id, HISTORY, self._as_of, until)

    async def settle(self) -> None:
        """Resolve what time has ended, when that is due."""
        if self._settlement is not None and self._settlement.at(self._as_of):
            await self._connection.execute(sql["take_due"], self._tenant.tenant_id)
            self.outcomes.append(await settle(self._connection, as_of=self._as_of, tuning=self._tuning))

    async def time(self, *, now: bool, complete: bool, events: bool) -> None:
        """Judge the instants since the last time, those of a time when nobody ran included, and plan the next, when that is due."""
        if complete and (now or (self._judgement is not None and self._judgement.at(self._as_of))):
            until = _hour(self._as_of)
            since = self._judged_until or await beginning(self._connection)
            if since is not None and since > until:
                # The clock was ahead when the detectors of time ran last. Begin with the hour that ended last.
                since = until - JUDGED_EVERY
            end = until
            if since is not None and since < until:
                until = min(until, _hour(shift(since, SLICE)))
                outcome = await judge_time(
                    self._connection,
                    since=since,
                    until=until,
                    as_of=self._as_of,
                    tuning=self._tuning,
                    replayed=now,
                    postponed=self._waiting,
                    guarded=self._guarded,
                )
                self.outcomes.append(outcome)
            spread = timedelta(seconds=self._tenant.tenant_id * 37 % JUDGED_WITHIN.total_seconds())
            self.behind = self.behind or until < end
            await self._plan_judgement(self._as_of if until < end else until + JUDGED_EVERY + spread, until)
        elif self._judgement is None and events:
            await self._plan_judgement(self._as_of + FIRST_JUDGED_AFTER, None)

    async def plan(self) -> None:
        """See to it that somebody comes again when time will ask for something."""
        if (due_at := min((each.settle_at for each in self.outcomes if each.settle_at is not None), default=None)) is not None:
            due_at = min(due_at, self._as_of + SETTLED_WITHIN)
            await self._connection.execute(sql["call_due"], self._tenant.tenant_id, due_at)
        for outcome in self.outcomes:
            for each in outcome.postponed:
                if each.error is not None:
                    kind, due_at = f"{REJUDGE}{each.detector}", self._as_of + REJUDGED_AFTER
                    await self._connection.execute(sql["postpone"], self._tenant.tenant_id, kind, due_at, each.since)

    async def _plan_judgement(self, due_at: datetime, since: datetime | None) -> None:
        await self._connection.execute(sql["plan_judgement"], self._tenant.tenant_id, due_at, since)


async def behind_of(connection: TenantConnection, tenant_id: int, *, as_of: datetime) -> dict[str, datetime]:
    """Return the detectors that have yet to evaluate what is projected, each with the event time from which on."""
    found: dict[str, datetime] = {}

    def note(names: Iterable[str], since: datetime) -> None:
        found.update((name, min(since, found.get(name, since))) for name in names)

    of_time = [name for name, detector in DETECTORS.items() if detector.every is not None]
    for row in await connection.fetch(sql["due"], tenant_id):
        kind, since = row["kind"], row["since"]
        if kind == HISTORY:
            note(DETECTORS, since)
        elif kind.startswith(REJUDGE):
            note([kind.removeprefix(REJUDGE)], since)
        elif kind == "evaluate":
            since = since or await beginning(connection)
            if since is not None and since < as_of - BEHIND_AFTER:
                note(of_time, since)
    return found


def _hour(instant: datetime) -> datetime:
    return instant.replace(minute=0, second=0, microsecond=0)


async def judge_of(connection: TenantConnection, tenant: Tenant, *, as_of: datetime, guarded: bool) -> Judge:
    """The judge of one visit."""
    due = {row["kind"]: Due(**dict(row)) for row in await connection.fetch(sql["due"], tenant.tenant_id)}
    return Judge(connection, tenant, due, as_of, guarded=guarded)
