"""Far more is refunded within a day than this tenant usually refunds.

Every refund is judged on the window before it, its own second included. By count: so many charges, however many parts each is given back
in. By amount, in each currency for itself and without the largest refund, which alone is no spike. Refunds that failed or were canceled
gave nothing back, and an authorization that expired uncaptured had taken nothing.

The usual is what nine in ten days stay below, so a day of the week on which refunds are made is usual, and one bad day is not. It ends
three days before the day that is judged, and counts refunds whatever became of them: neither late nor failing ones change it afterwards. A
tenant whose first charge or refund is younger than that is learning.
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

sql = load_statements(__file__, "refund_spike.sql")

DAY = timedelta(days=1)
AMOUNT_SAMPLE = 10  # refunds of a currency from which on its amounts are judged


class RefundSpike(Thresholds, frozen=True, kw_only=True):
    window_hours: Annotated[int, threshold("Refunds are counted over this long", unit="hours", ge=1, le=168)] = 24
    min_refunds: Annotated[int, threshold("Refunded charges needed; half as many where amounts tell", unit="charges", ge=3, le=100_000)] = 6
    baseline_factor: Annotated[float, threshold("Refunds needed, as a multiple of the usual", unit="factor", ge=1.2, le=100)] = 2.0
    min_strength: Annotated[float, threshold("How surely it must be no accident", unit="standard deviations", ge=2, le=20)] = 4.0
    baseline_days: Annotated[int, threshold("Days that the usual is taken from", unit="days", ge=3, le=90)] = 21
    critical_factor: Annotated[float, threshold("Multiple of what is needed that makes it critical", unit="factor", ge=1, le=100)] = 2.0


def _window(thresholds: RefundSpike) -> timedelta:
    return timedelta(hours=thresholds.window_hours)


def _reach(thresholds: RefundSpike) -> timedelta:
    # A part of a refund takes the next part for a repetition, which then counts no more in the window after it.
    return 2 * _window(thresholds)


def _warm_up(thresholds: RefundSpike) -> timedelta:
    return LATENESS + thresholds.baseline_days * DAY


def _parameters(thresholds: RefundSpike) -> tuple[object, ...]:
    return (
        _window(thresholds),
        thresholds.min_refunds,
        -(-thresholds.min_refunds // 2),
        thresholds.baseline_factor,
        thresholds.min_strength,
        thresholds.baseline_days,
        LATENESS,
        AMOUNT_SAMPLE,
        EVIDENCE_LIMIT,
    )


def _judge(row: Row, thresholds: RefundSpike) -> Incident:
    by_amount = row["usual_amount"] is not None
    usual = f"usually up to {row['usual_count']:.3g} a day" if not by_amount else f"more {row['currency'].upper()} than usual"
    return Incident(
        subject=subject_of("refunds", row["account"]),
        opened_at=row["opened_at"],
        last_seen_at=row["last_seen_at"],
        severity="critical" if row["peak_excess"] >= thresholds.critical_factor else "warning",
        summary=f"{row['peak_refunds']} charges were refunded within {thresholds.window_hours} hours ({usual}); "
        f"{say_amounts(row['amounts'])} given back",
        amounts=row["amounts"],
        evidence=evidence_of(
            since=row["opened_at"] - _window(thresholds),
            until=row["last_seen_at"],
            event_ids=row["event_ids"],
            events=row["refunds"],
            numbers={
                "refunds": row["refunds"],
                "refunded_charges": row["refunded_charges"],
                "reasons": row["reasons"],
                "peak_at": row["peak_at"].isoformat(),
                "peak_refunded_charges": row["peak_refunds"],
                "usual_refunded_charges": round(row["usual_count"], 2),
                "peak_currency": row["currency"],
                "peak_amount_without_largest": row["peak_amount"],
                "usual_amount": None if row["usual_amount"] is None else round(row["usual_amount"]),
                "of_what_is_needed": round(row["peak_excess"], 2),
            },
            objects={"refunds": row["refund_ids"], "charges": [charge_id for charge_id in row["charge_ids"] if charge_id]},
        ),
    )


DETECTOR = Detector(
    name="refund_spike",
    title="Refund spike",
    description="Far more charges are refunded within a day, or far more money in a currency, than this tenant usually gives back.",
    thresholds=RefundSpike,
    watches={
        "refunds": Watch(
            columns=frozenset({"status", "reason", "amount", "currency", "charge_id", "payment_intent_id", "released"}), reach=_reach
        )
    },
    quiet=_window,
    settles=True,
    warm_up=_warm_up,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
