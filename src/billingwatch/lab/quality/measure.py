"""One stream, simulated, delivered, and lived through twice: by the product, and by the plain rules."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from billingwatch.lab.quality.live import live
from billingwatch.lab.quality.plain import plain_alarms
from billingwatch.lab.quality.plan import Stream
from billingwatch.lab.quality.truth import Alarm, Truth, alarm_of, first_arrivals_of, truth_of
from billingwatch.simulate.deliveries import deliver_and_tell
from billingwatch.simulate.profiles import PROFILES
from billingwatch.simulate.seasons import DAY
from billingwatch.simulate.stream import rhythm_of, simulate
from billingwatch.tenancy.lanes import Lane, control_plane
from billingwatch.tenancy.provision import provision
from billingwatch.tenancy.registry import load_tenant
from billingwatch.tenancy.sealing import Seal

STATEMENT_TIMEOUT = 300  # seconds


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream took, in seconds of the wall clock; others may have used the machine meanwhile."""

    events: int
    deliveries: int
    visits: int
    simulating: float
    recording: float
    visiting: float
    ruling: float
    """The plain rules."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A stream, the truth about it, and what was said."""

    stream: Stream
    truths: list[Truth]
    ours: list[Alarm]
    plain: list[Alarm]
    dead: int
    """Events that could not be projected."""
    cost: Cost


async def measure(stream: Stream, dsn: str, seal: Seal, on_day: Callable[[], None] = lambda: None) -> Measured:
    """Measure one stream with a tenant of its own, which is gone afterwards."""
    began = time.perf_counter()
    profile = msgspec.structs.replace(PROFILES[stream.kind], shape=stream.shape)
    events, labels = simulate(seed=stream.seed, start=stream.start, days=stream.days, profile=profile, incidents=stream.incidents)
    rhythm = rhythm_of(seed=stream.seed, start=stream.start, days=stream.days, profile=profile)
    until = int(stream.start.timestamp()) + stream.days * DAY
    # What would come after the end has not come.
    sent, delivery_labels = deliver_and_tell(events, seed=stream.seed, troubles=stream.troubles, rhythm=rhythm)
    deliveries = [delivery for delivery in sent if delivery.at <= until]
    simulated = time.perf_counter()
    arrivals = first_arrivals_of(deliveries)
    truths = [
        truth_of(label, arrivals) for label in [*labels, *delivery_labels] if not label.event_ids or arrivals.keys() & set(label.event_ids)
    ]
    plain = plain_alarms(deliveries, until=until)
    ruled = time.perf_counter()
    lane = Lane(dsn, "billingwatch bench detection", statement_timeout=STATEMENT_TIMEOUT)
    try:
        async with control_plane(lane) as control:
            provisioned = await provision(control, seal, stream.name)
            tenant = await load_tenant(control, seal, stream.name)
        lived = await live(lane, tenant, deliveries, until=until, on_day=on_day)
        async with control_plane(lane) as control:
            # A tenant of the bench has no analysts and no service; what the control plane knows of it goes with the database.
            await control.execute(f"DROP SCHEMA {provisioned.schema_name} CASCADE")
    finally:
        await lane.close()
    return Measured(
        stream=stream,
        truths=truths,
        ours=[alarm_of(anomaly) for anomaly in lived.anomalies],
        plain=plain,
        dead=lived.dead,
        cost=Cost(
            events=len(events),
            deliveries=len(deliveries),
            visits=lived.visits,
            simulating=round(simulated - began, 3),
            recording=round(lived.recording_seconds, 3),
            visiting=round(lived.visiting_seconds, 3),
            ruling=round(ruled - simulated, 3),
        ),
    )
