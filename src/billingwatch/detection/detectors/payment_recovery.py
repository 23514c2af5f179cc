"""An invoice ran out of retries, or was given up: nobody will collect it unless somebody acts.

Stripe tells of a failed attempt in several snapshots, one of which may not name the next attempt yet. So a state is judged by the newest
within a minute of it: an attempt that lies ahead there means that Stripe goes on. An attempt that is still under way, as bank debits are for
days, has not failed. The first payment of a subscription is none, for without it the subscription never begins; nor is an invoice that the
customer was sent to pay by himself, until it is written off.

Each invoice is one anomaly, however often its collection is taken up again, and ends when it is paid, voided or deleted. It is the more
severe the more is owed, by what the tenant's invoices in that currency usually are.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from billingwatch.billing.money import format_money
from billingwatch.detection.detector import (
    LATENESS,
    Detector,
    Incident,
    Row,
    Thresholds,
    Watch,
    evidence_of,
    subject_of,
    threshold,
)
from billingwatch.detection.detectors.charge_failure_spike import DELAYED_METHODS
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "payment_recovery.sql")

SETTLING = timedelta(minutes=1)  # within which the snapshots of one attempt come; the candidates in the SQL rely on it
USUAL_SAMPLE, USUAL_INVOICES_MIN = 200, 20  # invoices of before that say what is usual
# An invoice may be written off or paid years after it was made. Nothing is judged beyond the newest state, so this is no cost.
FOR_YEARS = timedelta(days=5 * 365)
UNDER_WAY = timedelta(days=30)  # longer than any bank takes to decide


class PaymentRecovery(Thresholds, frozen=True, kw_only=True):
    min_amount: Annotated[int, threshold("Amount owed that is worth an anomaly", unit="minor units", ge=1, le=1_000_000_000)] = 1
    critical_factor: Annotated[
        float, threshold("What makes it critical, as a multiple of the usual invoice", unit="factor", ge=1, le=10_000)
    ] = 5.0


def _quiet(_: PaymentRecovery) -> timedelta:
    # A late state can tell that it had run out before; then it is the same anomaly.
    return LATENESS


def _reach_of_state(_: PaymentRecovery) -> timedelta:
    return LATENESS


def _reach_of_invoice(_: PaymentRecovery) -> timedelta:
    return FOR_YEARS


def _reach_of_charge(_: PaymentRecovery) -> timedelta:
    return UNDER_WAY


def _parameters(thresholds: PaymentRecovery) -> tuple[object, ...]:
    return (SETTLING, thresholds.min_amount, LATENESS, USUAL_SAMPLE, DELAYED_METHODS)


def _judge(row: Row, thresholds: PaymentRecovery) -> Incident:
    opened_at, amount, currency = row["opened_at"], row["amount_remaining"], row["currency"]
    usual = row["usual_amount"] if row["usual_invoices"] >= USUAL_INVOICES_MIN else None
    large = bool(usual and amount >= usual * thresholds.critical_factor)
    happened = f"{'was written off' if row['written_off'] else 'ran out of retries'} after {_times(row['attempt_count'])}"
    outcome = {"paid": ", paid since", "void": ", voided since", "deleted": ", deleted since"}.get(row["status_now"] or "", "")
    return Incident(
        subject=subject_of(row["invoice_id"], row["account"]),
        opened_at=opened_at,
        last_seen_at=opened_at,
        ended_at=row["ended_at"] and max(row["ended_at"], opened_at),
        severity="critical" if large else "warning",
        summary=f"Invoice {row['number'] or row['invoice_id']} of {row['customer_id'] or 'an unknown customer'} over "
        f"{format_money(amount, currency)} {happened}{outcome}",
        amounts={currency: amount},
        evidence=evidence_of(
            since=row["invoiced_at"] if row["invoiced_at"] is not None and row["invoiced_at"] < opened_at else opened_at,
            until=opened_at,
            event_ids=[row["event_id"]],
            events=1,
            numbers={
                "amount_remaining": amount,
                "currency": currency,
                "attempt_count": row["attempt_count"],
                "usual_invoice": usual,
                "billing_reason": row["billing_reason"],
                "written_off": row["written_off"],
                "status": row["status_now"],
            },
            objects={"invoice": row["invoice_id"], "customer": row["customer_id"], "subscription": row["subscription_id"]},
        ),
    )


def _times(attempts: int | None) -> str:
    if not attempts:
        return "no attempt"
    return "one attempt" if attempts == 1 else f"{attempts} attempts"


DETECTOR = Detector(
    name="payment_recovery",
    title="Payment recovery exhausted",
    description="An invoice ran out of retries or was written off, and is still unpaid; ends when it is paid or voided.",
    thresholds=PaymentRecovery,
    watches={
        "invoice_states": Watch(columns=frozenset({"facts"}), reach=_reach_of_state),
        "invoices": Watch(
            columns=frozenset({"status", "paid_at", "voided_at", "total", "currency", "created_at", "payment_ids"}), reach=_reach_of_invoice
        ),
        "charges": Watch(columns=frozenset({"status", "payment_id", "payment_method_type"}), reach=_reach_of_charge),
    },
    quiet=_quiet,
    settles=False,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
