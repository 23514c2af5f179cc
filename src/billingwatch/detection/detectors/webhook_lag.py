"""Events reach us late, and which part of the way is slow.

Stripe says when something happened (`created`), each delivery is signed when it is sent, and we note when it arrived: up to the signature
the delay is Stripe's, after it the network's and our own queue's. Every hour is judged on the newest events of the window before it, and
where those are few, on as many of the newest as are needed: then a lag goes on until events come in time, and ends days after the last.

A delivery that was tried before, while we did not answer, says nothing about Stripe's delay, nor does a backfill. Stripe does not tell
which they are, but order does: a delay holds up everything, so what arrives after something that happened minutes later was tried before.
What happened within minutes may have met one restart of ours, so lateness must show for longer. Replayed events carry no signature and are
left out. What is Stripe's own and what its connected accounts send comes through two endpoints, and is judged apart.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from billingwatch.detection.detector import EVIDENCE_LIMIT, Detector, Incident, Row, Thresholds, evidence_of, subject_of, threshold
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "webhook_lag.sql")

HOUR = timedelta(hours=1)
SAMPLE = 2000  # newest events of a window
SLOW_LEAST = 5  # late deliveries that make a tenth; one or two may have been tried before with nothing to tell of it
OVERTAKEN = timedelta(minutes=5)  # events of a few minutes may come in any order
LOOK_BACK = timedelta(days=3)  # for the newest events where they are few; the SQL of the candidates has it, too
RESTART = timedelta(minutes=10)  # in which we may not answer and nobody calls it an outage
PARTS = {"stripe": "Stripe sends events", "network": "The network or our queue delivers events"}


class WebhookLag(Thresholds, frozen=True, kw_only=True):
    window_hours: Annotated[int, threshold("Deliveries are measured over this long", unit="hours", ge=1, le=24)] = 1
    min_events: Annotated[int, threshold("First deliveries needed to judge", unit="events", ge=3, le=2000)] = 10
    stripe_median_seconds: Annotated[int, threshold("Stripe takes this long with half of the events", unit="seconds", ge=30, le=86_400)] = (
        300
    )
    stripe_p90_seconds: Annotated[int, threshold("Stripe takes this long with one in ten", unit="seconds", ge=30, le=86_400)] = 1800
    network_median_seconds: Annotated[
        int, threshold("Half of the deliveries take this long after they were sent", unit="seconds", ge=5, le=3600)
    ] = 20
    network_p90_seconds: Annotated[
        int, threshold("One in ten deliveries takes this long after it was sent", unit="seconds", ge=5, le=3600)
    ] = 60
    critical_factor: Annotated[float, threshold("As many times the threshold make it critical", unit="factor", ge=1, le=1000)] = 10.0


def _window(thresholds: WebhookLag) -> timedelta:
    return thresholds.window_hours * HOUR


def _quiet(thresholds: WebhookLag) -> timedelta:
    return _window(thresholds) + 2 * HOUR


def _parameters(thresholds: WebhookLag) -> tuple[object, ...]:
    return (
        _window(thresholds),
        SAMPLE,
        OVERTAKEN,
        thresholds.min_events,
        thresholds.stripe_median_seconds,
        thresholds.stripe_p90_seconds,
        thresholds.network_median_seconds,
        thresholds.network_p90_seconds,
        _quiet(thresholds),
        EVIDENCE_LIMIT,
        SLOW_LEAST,
        LOOK_BACK,
        RESTART,
    )


def _judge(row: Row, thresholds: WebhookLag) -> Incident:
    return Incident(
        subject=subject_of(row["part"], "connect" if row["connected"] else ""),
        opened_at=row["opened_at"],
        last_seen_at=row["last_seen_at"],
        severity="critical" if row["excess"] >= thresholds.critical_factor else "warning",
        summary=f"{PARTS[row['part']]}{' of connected accounts' if row['connected'] else ''} late: half of {row['samples']} took "
        f"{_span(row['median'])} or longer, one in ten {_span(row['p90'])}, in {thresholds.window_hours} h until "
        f"{row['peak_at']:%Y-%m-%d %H:%M} UTC",
        amounts={},
        evidence=evidence_of(
            since=row["opened_at"] - _window(thresholds),
            until=row["last_seen_at"],
            event_ids=row["event_ids"],
            events=row["samples"],
            numbers={
                "peak_at": row["peak_at"].isoformat(),
                "median_seconds": round(row["median"], 1),
                "p90_seconds": round(row["p90"], 1),
                "samples": row["samples"],
                "received": row["received"],
                "tried_before": row["tried_before"],
            },
            objects={"part": row["part"], "connected": row["connected"]},
        ),
    )


def _span(seconds: float) -> str:
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


DETECTOR = Detector(
    name="webhook_lag",
    title="Webhook lag",
    description="Events reach us late: Stripe's delay, and that of the network and our queue, are told apart.",
    thresholds=WebhookLag,
    watches={},  # events are dated by their arrival, so none comes late
    quiet=_quiet,
    settles=True,
    every=HOUR,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
