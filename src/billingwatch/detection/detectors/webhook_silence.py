"""No event arrives although the tenant's own rhythm says that many should have.

What counts is the rhythm of arrival: one endpoint that is disabled, misconfigured or unreachable is silent whatever goes on at Stripe. One
payment makes a burst of events, so bursts are counted: slots of a few minutes in which something arrived. In each of the weeks before,
from the same minute of the week at which the silence began, it took some time until so many bursts had arrived; once the silence has
lasted longer than in three of four of those weeks, chance does not explain it. So a busy tenant is missed after hours, one with two events
a day not in a night, and one with fewer never.

It goes on until the next event. Replayed and reconciled events and those of the wrong mode are no sign of life: Stripe did not deliver
them to this endpoint. All endpoints of the tenant's URL are heard together. With less than three weeks of events it is learning.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from billingwatch.detection.detector import Detector, Incident, Row, Severity, Thresholds, evidence_of, threshold
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "webhook_silence.sql")

HOUR, WEEK = timedelta(hours=1), timedelta(weeks=1)
WEEKS_MIN = 3
SLOT = timedelta(minutes=5)
STEPS_MAX = 1000  # arrivals of other kinds that are passed over to find the last of ours


class WebhookSilence(Thresholds, frozen=True, kw_only=True):
    min_bursts: Annotated[int, threshold("Bursts of events that must be missing", unit="bursts", ge=5, le=500)] = 13
    min_hours: Annotated[int, threshold("A shorter silence is none", unit="hours", ge=2, le=168)] = 2
    baseline_weeks: Annotated[int, threshold("Weeks before that say what is usual", unit="weeks", ge=3, le=12)] = 6
    critical_hours: Annotated[int, threshold("A silence that makes it critical", unit="hours", ge=2, le=720)] = 12


def _a_step(_: WebhookSilence) -> timedelta:
    return HOUR


def _warm_up(_: WebhookSilence) -> timedelta:
    return WEEKS_MIN * WEEK


def _parameters(thresholds: WebhookSilence) -> tuple[object, ...]:
    return (thresholds.min_hours * HOUR, thresholds.min_bursts, thresholds.baseline_weeks, WEEKS_MIN, SLOT, STEPS_MAX)


def _judge(row: Row, thresholds: WebhookSilence) -> Incident:
    silent = row["last_seen_at"] - row["silent_since"]
    severity: Severity = "critical" if silent >= thresholds.critical_hours * HOUR else "warning"
    weeks = [None if each is None else round(each / HOUR, 1) for each in row["usual"]]
    return Incident(
        subject="webhook",
        opened_at=row["opened_at"],
        last_seen_at=row["last_seen_at"],
        ended_at=row["heard_at"],
        severity=severity,
        summary=f"No event from Stripe for {silent / HOUR:.0f} hours since {row['silent_since']:%Y-%m-%d %H:%M} UTC; "
        f"usually {thresholds.min_bursts} bursts of them arrive within {row['needed'] / HOUR:.1f} hours then",
        amounts={},
        evidence=evidence_of(
            since=row["silent_since"],
            until=row["last_seen_at"],
            event_ids=[row["event_id"]],
            events=1,
            numbers={
                "silent_hours": round(silent / HOUR, 1),
                "bursts": thresholds.min_bursts,
                "burst_minutes": SLOT // timedelta(minutes=1),
                "usual_hours": round(row["needed"] / HOUR, 1),
                "usual_hours_of_weeks_before": weeks,
            },
            objects={"last_event": row["event_id"]},
        ),
    )


DETECTOR = Detector(
    name="webhook_silence",
    title="Webhook silence",
    description="No event arrives although many should have by the tenant's own rhythm.",
    thresholds=WebhookSilence,
    watches={},  # events are dated by their arrival, so none comes late
    quiet=_a_step,
    settles=False,
    every=HOUR,
    warm_up=_warm_up,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
