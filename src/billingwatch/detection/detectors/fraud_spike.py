"""Cardholders report fraud more often than card networks tolerate.

A case is a charge that was reported: by a dispute with reason `fraudulent`, by an early fraud warning, or by both, and then still one
case, at the earliest report. Inquiries and disputes for other reasons are none. Whether a dispute is won, lost or prevented later does
not matter: networks count what was reported.

Every case is judged on the window before it: so many cases, and so many per payment that succeeded in the whole hours of the window
before the case's hour. Amounts at risk are those of the reported charges; a dispute's own amount stands in for an unknown charge.
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

sql = load_statements(__file__, "fraud_spike.sql")

# An inquiry keeps its date when it becomes a dispute; then it can come before a warning about the same charge that had been the case.
ESCALATION = timedelta(days=90)
HOUR = timedelta(hours=1)


class FraudSpike(Thresholds, frozen=True, kw_only=True):
    window_days: Annotated[int, threshold("Cases and payments are counted over this long", unit="days", ge=1, le=60)] = 7
    min_cases: Annotated[int, threshold("Cases needed", unit="charges", ge=2, le=100_000)] = 5
    min_rate: Annotated[float, threshold("Cases needed per successful payment", unit="fraction", ge=0.0005, le=1)] = 0.01
    critical_rate: Annotated[float, threshold("Cases per successful payment that make it critical", unit="fraction", ge=0.0005, le=1)] = (
        0.02
    )


def _window(thresholds: FraudSpike) -> timedelta:
    return timedelta(days=thresholds.window_days)


def _reach_of_charge(thresholds: FraudSpike) -> timedelta:
    # It counts in the window after it. Reports that came before it are dated as late as Stripe delivers, and stay cases for a window.
    return LATENESS + _window(thresholds) + HOUR


def _reach_of_report(thresholds: FraudSpike) -> timedelta:
    return ESCALATION + _window(thresholds)


def _parameters(thresholds: FraudSpike) -> tuple[object, ...]:
    return (_window(thresholds), thresholds.min_cases, thresholds.min_rate, EVIDENCE_LIMIT)


def _judge(row: Row, thresholds: FraudSpike) -> Incident:
    amounts = row["amounts"] or {}
    at_risk = f"; {say_amounts(amounts)} at risk" if amounts else ""
    return Incident(
        subject=subject_of("fraud", row["account"]),
        opened_at=row["opened_at"],
        last_seen_at=row["last_seen_at"],
        severity="critical" if row["peak_rate"] >= thresholds.critical_rate else "warning",
        summary=f"{row['peak_cases']} charges were reported as fraud within {thresholds.window_days} days of {row['peak_payments']} payments{at_risk}",
        amounts=amounts,
        evidence=evidence_of(
            since=row["opened_at"] - _window(thresholds),
            until=row["last_seen_at"],
            event_ids=row["event_ids"],
            events=row["cases"],
            numbers={
                "cases": row["cases"],
                "by_dispute": row["disputes"],
                "by_early_fraud_warning": row["warnings"],
                "peak_at": row["peak_at"].isoformat(),
                "peak_cases": row["peak_cases"],
                "peak_payments": row["peak_payments"],
                "peak_rate": round(row["peak_rate"], 4),
            },
            objects={"disputes": row["dispute_ids"], "charges": [charge_id for charge_id in row["charge_ids"] if charge_id]},
        ),
    )


DETECTOR = Detector(
    name="fraud_spike",
    title="Fraud spike",
    description="Disputes for fraud and early fraud warnings exceed what card networks tolerate; one case per charge.",
    thresholds=FraudSpike,
    watches={
        "disputes": Watch(
            columns=frozenset({"kind", "reason", "charge_id", "payment_intent_id", "amount", "currency"}), reach=_reach_of_report
        ),
        "charges": Watch(columns=frozenset({"status"}), reach=_reach_of_charge),
    },
    quiet=_window,
    settles=True,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
