"""Cardholders report fraud more often than card networks tolerate, or far more often than this tenant's usually do.

A case is a charge that was reported: by a dispute with reason `fraudulent`, by an early fraud warning, or by both, and then still one
case, at the earliest report. Inquiries and disputes for other reasons are none. Whether a dispute is won, lost or prevented later does
not matter: networks count what was reported.

Every case is judged twice. By the networks' measure on the window before it: so many cases, and so many per payment that succeeded in the
whole hours of the window before the case's hour. By the tenant's own on the day before it, which shows an attack that the payments of a week
hide: more than the two weeks before lead to expect, by no accident. Those weeks end three days before the case's day, when everything that
Stripe still delivers has arrived; of a tenant whose first charge is younger than that they are being learned. Amounts at risk are those of the reported charges; a dispute's own amount stands in for an unknown charge.
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
SURGE = timedelta(days=1)  # no longer than the shortest window
USUAL_MIN = 0.25  # cases in that time that are expected of whoever had none; a month without any promises nothing


class FraudSpike(Thresholds, frozen=True, kw_only=True):
    window_days: Annotated[int, threshold("Cases and payments are counted over this long", unit="days", ge=1, le=60)] = 7
    min_cases: Annotated[int, threshold("Cases needed", unit="charges", ge=2, le=100_000)] = 5
    min_rate: Annotated[float, threshold("Cases needed per successful payment", unit="fraction", ge=0.0005, le=1)] = 0.01
    critical_rate: Annotated[float, threshold("Cases per successful payment that make it critical", unit="fraction", ge=0.0005, le=1)] = (
        0.02
    )
    surge_cases: Annotated[
        int, threshold("Cases needed within 24 hours, beside the tenant's own rate", unit="charges", ge=2, le=100_000)
    ] = 4
    baseline_days: Annotated[int, threshold("Days that the tenant's own rate is taken from", unit="days", ge=7, le=90)] = 14
    min_strength: Annotated[
        float, threshold("How surely more cases than usual must be no accident", unit="standard deviations", ge=1, le=20)
    ] = 3.5


def _window(thresholds: FraudSpike) -> timedelta:
    return timedelta(days=thresholds.window_days)


def _baseline(thresholds: FraudSpike) -> timedelta:
    # It ends at midnight before the lateness.
    return timedelta(days=thresholds.baseline_days + 1) + LATENESS


def _reach_of_charge(thresholds: FraudSpike) -> timedelta:
    # It counts in the window after it, and the first one tells when the baseline may begin. Reports that came before it are dated as late as
    # Stripe delivers, and stay cases for a window.
    return LATENESS + max(_window(thresholds) + HOUR, _baseline(thresholds))


def _reach_of_report(thresholds: FraudSpike) -> timedelta:
    return ESCALATION + max(_window(thresholds), _baseline(thresholds))


def _parameters(thresholds: FraudSpike) -> tuple[object, ...]:
    return (
        _window(thresholds),
        thresholds.min_cases,
        thresholds.min_rate,
        EVIDENCE_LIMIT,
        SURGE,
        thresholds.surge_cases,
        thresholds.baseline_days,
        LATENESS,
        USUAL_MIN,
        thresholds.min_strength,
    )


def _judge(row: Row, thresholds: FraudSpike) -> Incident:
    amounts = row["amounts"] or {}
    at_risk = f"; {say_amounts(amounts)} at risk" if amounts else ""
    beyond_limit = row["peak_rate"] is not None
    compared = (
        f"{row['peak_cases']} charges were reported as fraud within {thresholds.window_days} days of {row['peak_payments']} payments"
        if beyond_limit
        else f"{row['peak_surge']} charges were reported as fraud within a day (usually {row['usual']:.2g})"
    )
    return Incident(
        subject=subject_of("fraud", row["account"]),
        opened_at=row["opened_at"],
        last_seen_at=row["last_seen_at"],
        severity="critical" if beyond_limit and row["peak_rate"] >= thresholds.critical_rate else "warning",
        summary=f"{compared}{at_risk}",
        amounts=amounts,
        evidence=evidence_of(
            since=row["since"],
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
                "peak_rate": row["peak_rate"] and round(row["peak_rate"], 4),
                "peak_cases_of_a_day": row["peak_surge"],
                "usual_cases_of_a_day": row["usual"] and round(row["usual"], 2),
                "strength": row["strength"] and round(row["strength"], 2),
            },
            objects={"disputes": row["dispute_ids"], "charges": [charge_id for charge_id in row["charge_ids"] if charge_id]},
        ),
    )


DETECTOR = Detector(
    name="fraud_spike",
    title="Fraud spike",
    description="Disputes for fraud and early fraud warnings exceed what card networks tolerate, or by far what is usual; one case per charge.",
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
