"""What the database holds of a round's events."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import msgspec

from billingwatch.lab.fleet import Member
from billingwatch.lab.stage import Stage
from billingwatch.lab.verify import At
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.scope import tenant_scope

sql = load_statements(__file__, "found.sql")

PENDING_EVERY = 0.1  # seconds


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """Rows per tenant and event. `deliveries` is the count that the service keeps in the event's row."""

    stored: Counter[At]
    deliveries: Counter[At]
    charges: Counter[At]
    anomalies: Counter[At]  # duplicate_charge anomalies whose evidence names the event
    pending: Counter[At]
    dead: int


async def await_processed(stage: Stage, event_ids: Sequence[str], within: float) -> bool:
    """Wait until no event is pending and no detector postponed; False when time is up before."""
    deadline = time.monotonic() + within
    async with stage.control() as control:
        while time.monotonic() < deadline:
            await control.execute(sql["rejudge_now"])
            pending = await control.fetch(sql["pending"], event_ids)
            if not pending and not await control.fetchval(sql["postponed"]):
                return True
            await asyncio.sleep(PENDING_EVERY)
    return False


async def read_rows(stage: Stage, members: Sequence[Member], event_ids: Sequence[str]) -> Rows:
    """Read the rows of the given events in every tenant, the right one or not."""
    stored, deliveries, charges, anomalies = Counter[At](), Counter[At](), Counter[At](), Counter[At]()
    async with stage.control() as control:
        for member in members:
            async with tenant_scope(control, member, readonly=True) as tenant:
                for row in await tenant.fetch(sql["events"], event_ids):
                    stored[member.tenant_id, row["event_id"]] += 1
                    deliveries[member.tenant_id, row["event_id"]] += row["deliveries"]
                for row in await tenant.fetch(sql["charges"], event_ids):
                    charges[member.tenant_id, row["event_id"]] += 1
                for row in await tenant.fetch(sql["anomalies"]):
                    anomalies.update((member.tenant_id, event_id) for event_id in row["event_ids"])
        waiting = await control.fetch(sql["pending"], event_ids)
        dead = len(await control.fetch(sql["dead"], event_ids))
    return Rows(
        stored=stored,
        deliveries=deliveries,
        charges=charges,
        anomalies=anomalies,
        pending=Counter((row["tenant_id"], row["event_id"]) for row in waiting),
        dead=dead,
    )
