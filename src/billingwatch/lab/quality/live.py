"""One stream through the product: recorded as it arrives, visited as a service visits it, on a clock that runs with the stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby

import msgspec

from billingwatch.detection.store import Anomaly, AnomalyFilter, list_anomalies
from billingwatch.ingest.envelope import read_envelope
from billingwatch.ingest.record import Delivery, record_events
from billingwatch.judgement import JUDGED_WITHIN
from billingwatch.simulate.deliveries import Delivery as Arrival
from billingwatch.simulate.seasons import DAY, HOUR
from billingwatch.tenancy.lanes import Lane, control_plane
from billingwatch.tenancy.tenants import Tenant
from billingwatch.visit import visit

STEP = 300  # seconds; what arrives within a step is visited together, when the last of it has arrived
ANOMALIES_MAX = 100_000

_encoder = msgspec.json.Encoder()


class Lived(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a stream, and what it cost."""

    anomalies: list[Anomaly]
    visits: int
    dead: int
    recording_seconds: float
    visiting_seconds: float


async def live(lane: Lane, tenant: Tenant, arrivals: Sequence[Arrival], *, until: int, on_day: Callable[[], None] = lambda: None) -> Lived:
    """Live through the arrivals, which are in order, until `until` (Unix seconds)."""
    recording = visiting = 0.0
    visits = dead = day = 0
    for at, batch in _steps(arrivals, until):
        began = time.perf_counter()
        if batch:
            async with control_plane(lane) as connection:
                await record_events(connection, [_delivery(tenant, arrival) for arrival in batch])
        recorded = time.perf_counter()
        more = True
        while more:
            visited = await visit(lane, tenant, as_of=_instant(at))
            more, visits, dead = visited.more, visits + 1, dead + visited.dead
        recording, visiting = recording + recorded - began, visiting + time.perf_counter() - recorded
        if at // DAY != day:
            day = at // DAY
            on_day()
    async with lane.scope(tenant, readonly=True) as connection:
        anomalies = await list_anomalies(connection, AnomalyFilter(retracted=True), limit=ANOMALIES_MAX)
    return Lived(anomalies=anomalies, visits=visits, dead=dead, recording_seconds=recording, visiting_seconds=visiting)


def _steps(arrivals: Sequence[Arrival], until: int) -> Iterator[tuple[int, list[Arrival]]]:
    """Instants to visit at: when something has arrived, and once an hour when all that is due in that hour is due."""
    late = int(JUDGED_WITHIN.total_seconds())
    first = arrivals[0].at if arrivals else until
    tick = first - first % HOUR + late
    tick += HOUR if tick < first else 0
    for _, group in groupby(arrivals, key=lambda arrival: arrival.at // STEP):
        batch = list(group)
        while tick <= batch[0].at:
            yield tick, []
            tick += HOUR
        yield batch[-1].at, batch
    while tick <= until:
        yield tick, []
        tick += HOUR


def _delivery(tenant: Tenant, arrival: Arrival) -> Delivery:
    body = _encoder.encode(arrival.event)
    envelope = read_envelope(body)
    return Delivery(
        tenant=tenant,
        envelope=envelope,
        disposition=envelope.disposition(tenant.mode),
        payload=body.decode(),
        received_at=_instant(arrival.at),
        signed_at=_instant(arrival.signed_at),
    )


def _instant(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)
