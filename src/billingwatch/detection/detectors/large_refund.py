"""One refund is far larger than what this tenant usually charges, let alone gives back.

What is large depends on the tenant and the currency: a refund counts from a multiple of the median charge in its currency, if it is also
larger than nearly all other charges, and from a floor in whole units of the currency, whatever its decimals. A tenant that has given back that
much several times in the last weeks does so usually. An authorization that expired uncaptured had taken nothing; a refund that failed or
was canceled ends it.

Charges and refunds are compared with whatever became of them, up to three days before the day of the refund: later events change nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from billingwatch.billing.money import THREE_DECIMAL, ZERO_DECIMAL, format_money
from billingwatch.detection.detector import (
    LATENESS,
    Detector,
    Incident,
    Row,
    Thresholds,
    Watch,
    evidence_of,
    no_time,
    subject_of,
    threshold,
)
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "large_refund.sql")

BASELINE_SAMPLE = 300  # charges of each day
MIN_CHARGES = 10  # in the currency; of a tenant with fewer it is not known what is large
COMPARABLE = 1.5  # a refund that is at most so many times another one is as usual as that
USUAL_REFUNDS = 3  # comparable ones that make it usual
LARGE = 0.97  # share of charges that a large one exceeds


class LargeRefund(Thresholds, frozen=True, kw_only=True):
    min_amount: Annotated[
        int, threshold("Refund needed, in whole units of its currency", unit="currency units", ge=1, le=1_000_000_000)
    ] = 100
    median_factor: Annotated[float, threshold("Refund needed, as a multiple of the median charge", unit="factor", ge=1, le=1000)] = 8.0
    large_factor: Annotated[float, threshold("Refund needed, as a multiple of a large charge", unit="factor", ge=0.5, le=100)] = 1.0
    baseline_days: Annotated[int, threshold("Days whose charges and refunds it is compared with", unit="days", ge=7, le=90)] = 42
    critical_factor: Annotated[float, threshold("Multiple of the median charge that makes it critical", unit="factor", ge=1, le=10_000)] = (
        40.0
    )


def _warm_up(_: LargeRefund) -> timedelta:
    return LATENESS


def _parameters(thresholds: LargeRefund) -> tuple[object, ...]:
    return (
        thresholds.min_amount,
        sorted(ZERO_DECIMAL),
        sorted(THREE_DECIMAL),
        thresholds.median_factor,
        thresholds.large_factor,
        thresholds.baseline_days,
        LATENESS,
        BASELINE_SAMPLE,
        MIN_CHARGES,
        COMPARABLE,
        USUAL_REFUNDS,
        LARGE,
    )


def _judge(row: Row, thresholds: LargeRefund) -> Incident:
    created_at, amount, currency = row["created_at"], row["amount"], row["currency"]
    multiple = amount / max(row["median_charge"], 1)
    of_charge = f" of {row['charge_id']}" if row["charge_id"] else ""
    return Incident(
        subject=subject_of(row["refund_id"], row["account"]),
        opened_at=created_at,
        last_seen_at=created_at,
        ended_at=row["withdrawn_at"] and max(row["withdrawn_at"], created_at),
        severity="critical" if multiple >= thresholds.critical_factor else "warning",
        summary=f"{format_money(amount, currency)} was refunded{of_charge}, {multiple:.3g} times the median charge",
        amounts={currency: amount},
        evidence=evidence_of(
            since=created_at,
            until=created_at,
            event_ids=[row["event_id"]],
            events=1,
            numbers={
                "amount": amount,
                "currency": currency,
                "reason": row["reason"],
                "status": row["status"],
                "median_charge": row["median_charge"],
                "large_charge": row["large_charge"],
                "compared_charges": row["compared_charges"],
                "comparable_refunds": row["comparable_refunds"],
            },
            objects={"refund": row["refund_id"], "charge": row["charge_id"]},
        ),
    )


DETECTOR: Detector[LargeRefund] = Detector(
    name="large_refund",
    title="Large refund",
    description="A single refund is far larger than this tenant's charges and refunds in that currency usually are.",
    thresholds=LargeRefund,
    watches={"refunds": Watch(columns=frozenset({"status", "reason", "amount", "currency", "charge_id", "released"}), reach=no_time)},
    quiet=no_time,
    settles=False,
    warm_up=_warm_up,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
