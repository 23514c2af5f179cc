"""Far more subscriptions end than this tenant's usually do.

What counts is a subscription that had been paying and is now canceled, when it ends and not when that was announced; a trial that never
paid and a first payment that never came are no churn. One that ended while its payment was overdue ended involuntarily, which the evidence
tells apart.

Time is judged every hour in which a subscription ended, on the window before. It is compared with the windows before that one, four weeks
of them, which end three days before the window begins, when everything Stripe still delivers has arrived. It must be a multiple of the
busiest of them, so that renewals that all fall on the first of a month are expected to bring their cancellations along; given their mean,
it must be no accident that as many ended in the window, or on its last day; and it must be a noticeable part of the subscriptions that were heard of in those weeks. For want of a first of a
month among them, less history than that is learning: a state of a subscription or a charge must be as old.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from billingwatch.detection.detector import (
    EVIDENCE_LIMIT,
    LATENESS,
    Detector,
    Incident,
    Row,
    Thresholds,
    Watch,
    evidence_of,
    say_amounts,
    subject_of,
    threshold,
)
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "churn_spike.sql")

EVERY = timedelta(hours=1)  # the candidates in the SQL rely on it
USUAL_MIN = 0.5  # ends in a window that are expected of whoever had none; a month without any promises nothing


class ChurnSpike(Thresholds, frozen=True, kw_only=True):
    window_days: Annotated[int, threshold("Ends are counted over this long", unit="days", ge=1, le=14)] = 7
    min_ended: Annotated[int, threshold("Ended subscriptions needed", unit="subscriptions", ge=3, le=100_000)] = 5
    min_share: Annotated[float, threshold("Ended subscriptions needed, of those known", unit="fraction", ge=0.0005, le=1)] = 0.04
    baseline_days: Annotated[int, threshold("Days that the usual number is taken from", unit="days", ge=28, le=180)] = 28
    baseline_factor: Annotated[float, threshold("Number needed, as a multiple of the busiest window", unit="factor", ge=1, le=100)] = 2.0
    min_strength: Annotated[float, threshold("How surely it must be no accident", unit="standard deviations", ge=1, le=20)] = 3.5
    critical_share: Annotated[
        float, threshold("Part of the known subscriptions whose end is critical", unit="fraction", ge=0.001, le=1)
    ] = 0.1


def _window(thresholds: ChurnSpike) -> timedelta:
    return timedelta(days=thresholds.window_days)


def _reach(thresholds: ChurnSpike) -> timedelta:
    # A late state tells that a subscription had been paying, or overdue, before it ended.
    return LATENESS + _window(thresholds) + EVERY


def _baseline_windows(thresholds: ChurnSpike) -> int:
    return -(-thresholds.baseline_days // thresholds.window_days)


def _warm_up(thresholds: ChurnSpike) -> timedelta:
    # The baseline ends at midnight before all that.
    return (_baseline_windows(thresholds) + 1) * _window(thresholds) + LATENESS + timedelta(days=1)


def _parameters(thresholds: ChurnSpike) -> tuple[object, ...]:
    return (
        _window(thresholds),
        EVERY,
        thresholds.min_ended,
        thresholds.min_share,
        thresholds.baseline_factor,
        thresholds.min_strength,
        _baseline_windows(thresholds),
        LATENESS,
        USUAL_MIN,
        EVIDENCE_LIMIT,
    )


def _judge(row: Row, thresholds: ChurnSpike) -> Incident:
    amounts = row["amounts"] or {}
    share = row["peak_ended"] / row["known"]
    lost = f"; {say_amounts(amounts)} a month lost" if amounts else ""
    return Incident(
        subject=subject_of("churn", row["account"]),
        opened_at=row["opened_at"],
        last_seen_at=row["last_seen_at"],
        severity="critical" if share >= thresholds.critical_share else "warning",
        summary=f"{row['peak_ended']} subscriptions ended within {thresholds.window_days} days "
        f"(at most {row['busiest']} in such a time before), {row['involuntary']} of all {row['ended']} after a failed payment{lost}",
        amounts=amounts,
        evidence=evidence_of(
            since=row["opened_at"] - _window(thresholds),
            until=row["last_seen_at"],
            event_ids=row["event_ids"],
            events=row["ended"],
            numbers={
                "ended": row["ended"],
                "voluntary": row["ended"] - row["involuntary"],
                "involuntary": row["involuntary"],
                "peak_at": row["peak_at"].isoformat(),
                "peak_ended": row["peak_ended"],
                "busiest_before": row["busiest"],
                "median_before": row["median"],
                "known_subscriptions": row["known"],
                "share": round(share, 4),
                "strength": round(row["strength"], 2),
            },
            objects={"subscriptions": row["subscription_ids"]},
        ),
    )


DETECTOR = Detector(
    name="churn_spike",
    title="Churn spike",
    description="Far more paying subscriptions end than usual; ends after failed payments are told apart from cancellations.",
    thresholds=ChurnSpike,
    watches={"subscription_states": Watch(columns=frozenset({"facts"}), reach=_reach)},
    quiet=_window,
    settles=True,
    every=EVERY,
    warm_up=_warm_up,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
