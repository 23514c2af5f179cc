"""The comparison of what the sender knows with what the database holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from billingwatch.lab.faults.found import Rows
from billingwatch.lab.faults.stream import StreamEvent
from billingwatch.lab.fleet import Member
from billingwatch.lab.verify import At

Sent = Mapping[At, StreamEvent]


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of events. `findings` names what else is wrong."""

    acked: int
    stored: int
    processed: int
    lost: int
    doubled: int
    findings: list[str]


def compare(members: Sequence[Member], events: Sequence[StreamEvent], rows: Rows) -> Compared:
    """Compare per tenant: each acknowledged event has one row and one charge, a twin one anomaly."""
    sent: Sent = {(members[event.tenant].tenant_id, event.event_id): event for event in events}
    acked = {at: event for at, event in sent.items() if event.acked}
    stored = sum(at in rows.stored for at in acked)
    processed = sum(at in rows.charges and at not in rows.pending for at in acked)
    return Compared(
        acked=len(acked),
        stored=stored,
        processed=processed,
        lost=len(acked) - stored,
        doubled=sum(_excess(sent, rows)),
        findings=list(_findings(sent, acked, processed, rows)),
    )


def _excess(sent: Sent, rows: Rows) -> Iterator[int]:
    """Yield the surplus of rows, counted deliveries, charges and anomalies."""
    for held in (rows.stored, rows.charges):
        tenants_of = Counter[str]()
        for (_, event_id), times in held.items():
            tenants_of[event_id] += times
        yield sum(times - 1 for times in tenants_of.values())
    yield sum(max(rows.deliveries[at] - len(event.attempts), 0) for at, event in sent.items())
    yield sum(max(rows.anomalies[at] - 1, 0) for at, event in sent.items() if event.twin is not None)


def _findings(sent: Sent, acked: Sent, processed: int, rows: Rows) -> Iterator[str]:
    if refused := len(sent) - len(acked):
        yield f"{refused} events were never acknowledged, also after the fault"
    if waiting := len(acked) - processed:
        yield f"{waiting} acknowledged events were not processed"
    if misplaced := len(rows.stored.keys() - sent.keys()):
        yield f"{misplaced} events are stored for another tenant"
    if rows.dead:
        yield f"{rows.dead} events are dead letters"
    twins = [at for at, event in acked.items() if event.twin is not None and (at[0], event.twin) in acked]
    if missing := sum(not rows.anomalies[at] for at in twins):
        yield f"{missing} duplicate payments have no anomaly"
