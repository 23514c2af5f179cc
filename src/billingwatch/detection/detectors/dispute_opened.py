"""A customer disputes a charge, or the bank inquires about one: somebody has to answer before a deadline.

Each dispute is one anomaly, dated by its creation and ended when it is decided, either way. An inquiry is information until it escalates;
then it is the same dispute, and its severity rises. An early fraud warning is neither. What is large or due soon is one step more severe:
large by what the tenant usually charges in that currency, taken from charges that had all arrived when the dispute was made.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from billingwatch.billing.money import format_money
from billingwatch.detection.detector import (
    LATENESS,
    Detector,
    Incident,
    Row,
    Severity,
    Thresholds,
    Watch,
    evidence_of,
    no_time,
    subject_of,
    threshold,
)
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "dispute_opened.sql")

USUAL_SAMPLE, USUAL_CHARGES_MIN = 200, 20  # charges before the dispute that say what is usual
STATUSES = {
    "won": "won",
    "lost": "lost",
    "warning_closed": "closed without a dispute",
    "prevented": "prevented",
    "charge_refunded": "refunded",
    "under_review": "under review",
    "warning_under_review": "under review",
}


class DisputeOpened(Thresholds, frozen=True, kw_only=True):
    large_factor: Annotated[float, threshold("What makes it large, as a multiple of the usual charge", unit="factor", ge=1, le=10_000)] = (
        10.0
    )
    due_days: Annotated[float, threshold("Evidence that is due this soon after the opening makes it urgent", unit="days", ge=0, le=30)] = (
        3.0
    )
    min_amount: Annotated[int, threshold("Disputed amount that is worth an anomaly", unit="minor units", ge=0, le=1_000_000_000)] = 0


def _reach_of_charge(_: DisputeOpened) -> timedelta:
    # A charge can come after the dispute about it.
    return LATENESS


def _parameters(thresholds: DisputeOpened) -> tuple[object, ...]:
    return (LATENESS, USUAL_SAMPLE, thresholds.min_amount)


def _judge(row: Row, thresholds: DisputeOpened) -> Incident:
    created_at, amount, currency, due_at = row["created_at"], row["amount"], row["currency"], row["evidence_due_at"]
    usual = row["usual_amount"] if row["usual_charges"] >= USUAL_CHARGES_MIN else None
    known = amount is not None and currency is not None
    large = bool(known and usual and amount >= usual * thresholds.large_factor)
    urgent = due_at is not None and timedelta(0) <= due_at - created_at <= timedelta(days=thresholds.due_days)
    return Incident(
        subject=subject_of(row["dispute_id"], row["account"]),
        opened_at=created_at,
        last_seen_at=created_at,
        ended_at=row["ended_at"] and max(row["ended_at"], created_at),
        severity=_severity(row["kind"], raised=large or urgent),
        summary=f"{row['customer_id'] or 'A customer'} {'inquired about' if row['kind'] == 'inquiry' else 'disputed'} "
        f"{format_money(amount, currency) if known else 'an unknown amount'}{_reason(row['reason'])}; {_standing(row['status'], due_at)}",
        amounts={currency: amount} if known else {},
        evidence=evidence_of(
            since=created_at,
            until=due_at if due_at is not None and due_at > created_at else created_at,
            event_ids=[row["event_id"]],
            events=1,
            numbers={
                "amount": amount,
                "currency": currency,
                "charge_amount": row["charge_amount"],
                "charge_currency": row["charge_currency"],
                "usual_charge": usual,
                "kind": row["kind"],
                "reason": row["reason"],
                "status": row["status"],
                "evidence_due_at": due_at and due_at.isoformat(),
            },
            objects={
                "dispute": row["dispute_id"],
                "charge": row["charge_id"],
                "payment_intent": row["payment_intent_id"],
                "customer": row["customer_id"],
            },
        ),
    )


def _severity(kind: str, *, raised: bool) -> Severity:
    if kind == "inquiry":
        return "warning" if raised else "info"
    return "critical" if raised else "warning"


def _reason(reason: str | None) -> str:
    return f" ({reason.replace('_', ' ')})" if reason else ""


def _standing(status: str | None, due_at: datetime | None) -> str:
    if status in STATUSES:
        return STATUSES[status]
    return f"evidence is due by {due_at:%Y-%m-%d %H:%M} UTC" if due_at is not None else "no deadline for evidence is known"


DETECTOR = Detector(
    name="dispute_opened",
    title="Dispute opened",
    description="A customer disputes a charge or a bank inquires about one; names the deadline for evidence and how it ended.",
    thresholds=DisputeOpened,
    watches={
        "disputes": Watch(
            columns=frozenset(
                {"kind", "status", "reason", "amount", "currency", "charge_id", "payment_intent_id", "evidence_due_at", "created_at"}
            ),
            reach=no_time,
        ),
        "charges": Watch(columns=frozenset({"customer_id", "amount", "currency"}), reach=_reach_of_charge),
    },
    quiet=no_time,
    settles=False,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
