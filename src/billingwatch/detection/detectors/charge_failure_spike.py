"""Payments fail far more often than this tenant's payments usually do.

A payment counts once, by its first attempt, and so do payments with one card within the window: eight retries of one invoice, or eight
orders that one customer gives up, are one customer failing. What Radar blocked never reached an issuer and is no attempt here; whether
somebody tests cards is another detector's question. A pending charge is an attempt and no failure; an expired authorization is no failure
either.

Every failed first attempt is judged on the window before it, both ends and its own second included. The usual rate comes from the same
time of day on each of the days before, and ends three days earlier, when everything Stripe still delivers has arrived: so a late event
never changes the baseline of a verdict. Bank debits fail days after they were made; they count in the window but not in the baseline.
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
    Severity,
    Thresholds,
    Watch,
    evidence_of,
    say_amounts,
    subject_of,
    threshold,
)
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "charge_failure_spike.sql")

BASELINE_SAMPLE = 100  # charges of each day
# What is assumed of a tenant without history; it weighs as much as this many attempts.
PRIOR_RATE, PRIOR_ATTEMPTS = 0.05, 100
DELAYED_METHODS = (
    "ach_debit",
    "acss_debit",
    "au_becs_debit",
    "bacs_debit",
    "nz_bank_account",
    "payto",
    "sepa_debit",
    "sofort",
    "us_bank_account",
)


class ChargeFailureSpike(Thresholds, frozen=True, kw_only=True):
    window_minutes: Annotated[int, threshold("Failures are counted over this long", unit="minutes", ge=5, le=1440)] = 60
    min_attempts: Annotated[int, threshold("First attempts needed to judge a window", unit="payments", ge=5, le=100_000)] = 20
    min_failures: Annotated[int, threshold("Failures needed", unit="payments", ge=2, le=100_000)] = 5
    min_rate: Annotated[float, threshold("Failure rate needed, whatever is usual", unit="fraction", ge=0.01, le=1)] = 0.15
    baseline_factor: Annotated[float, threshold("Failure rate needed, as a multiple of the usual", unit="factor", ge=1, le=100)] = 2.0
    baseline_days: Annotated[int, threshold("Days that the usual rate is taken from", unit="days", ge=3, le=60)] = 14
    min_strength: Annotated[float, threshold("How surely it must be no accident", unit="standard deviations", ge=2, le=20)] = 4.0
    critical_rate: Annotated[float, threshold("Failure rate that makes it critical", unit="fraction", ge=0.01, le=1)] = 0.4


def _window(thresholds: ChargeFailureSpike) -> timedelta:
    return timedelta(minutes=thresholds.window_minutes)


def _reach(thresholds: ChargeFailureSpike) -> timedelta:
    # A late first attempt turns an attempt that was taken for the first into a retry, which then hides no other payment of its card.
    return LATENESS + 2 * _window(thresholds)


def _parameters(thresholds: ChargeFailureSpike) -> tuple[object, ...]:
    return (
        _window(thresholds),
        thresholds.min_attempts,
        thresholds.min_failures,
        thresholds.min_rate,
        thresholds.baseline_factor,
        thresholds.min_strength,
        thresholds.baseline_days,
        LATENESS,
        BASELINE_SAMPLE,
        DELAYED_METHODS,
        PRIOR_ATTEMPTS,
        PRIOR_RATE,
        EVIDENCE_LIMIT,
    )


def _judge(row: Row, thresholds: ChargeFailureSpike) -> Incident:
    severity: Severity = "critical" if row["peak_rate"] >= thresholds.critical_rate else "warning"
    return Incident(
        subject=subject_of("declined", row["account"]),
        opened_at=row["opened_at"],
        last_seen_at=row["last_seen_at"],
        severity=severity,
        summary=f"{row['peak_failures']} of {row['peak_attempts']} payments were declined within {thresholds.window_minutes} minutes "
        f"({row['peak_rate']:.1%}, usually {row['baseline']:.1%}); {say_amounts(row['amounts'])} not collected at first",
        amounts=row["amounts"],
        evidence=evidence_of(
            since=row["opened_at"] - _window(thresholds),
            until=row["last_seen_at"],
            event_ids=row["event_ids"],
            events=row["failures"],
            numbers={
                "failures": row["failures"],
                "decline_codes": row["decline_codes"],
                "peak_at": row["peak_at"].isoformat(),
                "peak_failures": row["peak_failures"],
                "peak_attempts": row["peak_attempts"],
                "peak_rate": round(row["peak_rate"], 4),
                "baseline_rate": round(row["baseline"], 4),
                "baseline_attempts": row["baseline_attempts"],
                "strength": round(row["strength"], 2),
            },
            objects={"charges": row["charge_ids"]},
        ),
    )


DETECTOR = Detector(
    name="charge_failure_spike",
    title="Charge failure spike",
    description="Issuers decline far more payments than usual; each payment and each card counts once.",
    thresholds=ChargeFailureSpike,
    watches={"charges": Watch(columns=frozenset({"status", "outcome_type", "payment_id", "card_fingerprint"}), reach=_reach)},
    quiet=_window,
    settles=True,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
