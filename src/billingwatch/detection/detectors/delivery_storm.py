"""The same events arrive over and over: we take them, so somebody does not hear us say so.

Stripe delivers an event again when its answer was lost or came too late, up to seven times in the first day; a loop of somebody's own that
resends events knows no end. It is a storm when so many events of a day were each delivered many times, or one more often than Stripe does
of itself in that day.

An event belongs to the hour in which it first arrived, and its deliveries count for a day from then. How often it arrived says nothing
about when, so every hour looks back a day, and a storm is dated from the first arrival of its first event to the last of its last. What
is Stripe's own and what its connected accounts send comes through two endpoints, and is judged apart.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from billingwatch.detection.detector import EVIDENCE_LIMIT, Detector, Incident, Row, Thresholds, evidence_of, subject_of, threshold
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "delivery_storm.sql")

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LOOK_BACK = DAY + HOUR
CALM = 6 * HOUR  # what is further apart are two storms
QUIET = LOOK_BACK + CALM  # so long a delivery can change a storm, or join it to the one before


class DeliveryStorm(Thresholds, frozen=True, kw_only=True):
    min_deliveries: Annotated[int, threshold("An event delivered this often counts", unit="deliveries", ge=3, le=1000)] = 5
    min_events: Annotated[int, threshold("Such events within a day that make a storm", unit="events", ge=2, le=100_000)] = 10
    min_deliveries_of_one: Annotated[int, threshold("One event delivered this often is a storm", unit="deliveries", ge=3, le=10_000)] = 8
    critical_events: Annotated[int, threshold("Such events that make it critical", unit="events", ge=2, le=1_000_000)] = 100


def _quiet(_: DeliveryStorm) -> timedelta:
    return QUIET


def _parameters(thresholds: DeliveryStorm) -> tuple[object, ...]:
    return (
        DAY,
        LOOK_BACK,
        CALM,
        thresholds.min_deliveries,
        thresholds.min_events,
        thresholds.min_deliveries_of_one,
        EVIDENCE_LIMIT,
    )


def _judge(row: Row, thresholds: DeliveryStorm) -> Incident:
    events, deliveries = row["events"], row["deliveries"]
    what = "One event was" if events == 1 else f"{events} events were"
    return Incident(
        subject=subject_of("endpoint", "connect" if row["connected"] else ""),
        opened_at=row["opened_at"],
        last_seen_at=row["last_seen_at"],
        severity="critical" if events >= thresholds.critical_events else "warning",
        summary=f"{what} delivered {deliveries} times in all, one of them {row['most']} times; each was accepted at the first delivery"
        if events > 1
        else f"{what} delivered {deliveries} times; it was accepted at the first delivery",
        amounts={},
        evidence=evidence_of(
            since=row["first_received_at"],
            until=row["last_received_at"],
            event_ids=row["event_ids"],
            events=events,
            numbers={"events": events, "deliveries": deliveries, "most_deliveries_of_one": row["most"], "types": row["types"]},
            objects={"connected": row["connected"]},
        ),
    )


DETECTOR = Detector(
    name="delivery_storm",
    title="Delivery storm",
    description="The same events are delivered over and over although each was accepted.",
    thresholds=DeliveryStorm,
    watches={},  # a repeated delivery is no change of a projected row
    quiet=_quiet,
    settles=True,
    every=HOUR,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
