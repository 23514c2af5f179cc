"""Afterwards: what was acknowledged is stored, once, where it belongs, and nothing else is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from billingwatch.lab.fleet import Member
from billingwatch.lab.load import Outcome
from billingwatch.lab.stage import Stage
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.scope import tenant_scope

sql = load_statements(__file__, "verify.sql")

At = tuple[int, str]
"""A tenant, and the id of an event of it."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that must be true whatever the speed."""

    name: str
    passed: bool
    detail: str


class Posted(msgspec.Struct, frozen=True, kw_only=True):
    """What the load process says: `acked` must be stored, `unacked` may be."""

    acked: Counter[At]
    unacked: set[At]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the database says. `deliveries` counts what the service counted."""

    stored: Counter[At]
    deliveries: int
    pending: Counter[At]
    charges: Counter[At]
    dead_letters: int


class _Place(msgspec.Struct, frozen=True):
    tenant_id: int
    schema_name: str


def gather_posted(members: Sequence[Member], outcomes: Sequence[Outcome]) -> Posted:
    """Put the outcomes of a run together."""
    acked: Counter[At] = Counter()
    unacked: set[At] = set()
    for outcome in outcomes:
        acked.update((members[tenant].tenant_id, event_id) for tenant, event_id in zip(outcome.tenants, outcome.event_ids, strict=True))
        unacked.update((members[tenant].tenant_id, event_id) for tenant, event_id in outcome.unacked)
    return Posted(acked=acked, unacked=unacked)


async def look(stage: Stage, *, charges: bool = False) -> Found:
    """Read the rows of every tenant, through the one door."""
    async with stage.control() as control:
        stored: Counter[At] = Counter()
        projected: Counter[At] = Counter()
        deliveries = 0
        for row in await control.fetch(sql["places"]):
            place = _Place(row["tenant_id"], row["schema_name"])
            async with tenant_scope(control, place, readonly=True) as tenant:
                events = await tenant.fetch(sql["stored_events"])
                if charges:
                    projected.update((place.tenant_id, charge["event_id"]) for charge in await tenant.fetch(sql["charges"]))
            stored.update((place.tenant_id, event["event_id"]) for event in events)
            deliveries += sum(event["deliveries"] for event in events)
        return Found(
            stored=stored,
            deliveries=deliveries,
            pending=Counter((row["tenant_id"], row["event_id"]) for row in await control.fetch(sql["pending_events"])),
            charges=projected,
            dead_letters=await control.fetchval(sql["dead_letters"]),
        )


def check_recording(posted: Posted, found: Found) -> list[Check]:
    """Every acknowledged event exactly once, among its tenant's."""
    missing = posted.acked.keys() - found.stored.keys()
    strange = found.stored.keys() - posted.acked.keys() - posted.unacked
    twice = [event_id for event_id, times in Counter(event_id for _, event_id in found.stored.elements()).items() if times > 1]
    over = found.deliveries - found.stored.total()
    return [
        _check(
            "every acknowledged event is stored for its tenant",
            not missing,
            f"{posted.acked.total():,} acknowledged, {len(missing):,} missing",
        ),
        _check("no event is stored for another tenant", not strange, f"{found.stored.total():,} stored, {len(strange):,} misplaced"),
        _check("no event is stored twice", not twice and not over, f"{len(twice):,} stored and {over:,} counted more than once"),
    ]


def check_waiting(found: Found) -> Check:
    """Without processing, each event waits for it, once."""
    lost = found.stored.keys() - found.pending.keys()
    passed = found.pending == found.stored
    return _check("every stored event waits to be processed, once", passed, f"{found.pending.total():,} waiting, {len(lost):,} lost")


def check_processing(found: Found) -> list[Check]:
    """With processing, each event became its charge, once."""
    lost = found.stored.keys() - found.charges.keys()
    passed = found.charges == found.stored
    return [
        _check("nothing waits any more", not found.pending, f"{found.pending.total():,} waiting"),
        _check("every event is projected into its tenant's charges", passed, f"{found.charges.total():,} charges, {len(lost):,} lost"),
        _check("no event is a dead letter", found.dead_letters == 0, f"{found.dead_letters:,} dead letters"),
    ]


def _check(name: str, passed: bool, detail: str) -> Check:
    return Check(name=name, passed=passed, detail=detail)
