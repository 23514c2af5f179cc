"""A subscription was invoiced twice for one period.

Two renewals (`billing_reason` subscription_cycle) bill it twice when lines of one subscription item overlap, when both close the same
period, or, where no lines tell, when the second comes long before the interval after the first has passed. Where the first one is older
than the history, the period that the subscription was known to be in stands in for it. An invoice counts once, whatever events tell of it. No doubles are: invoices of updates, prorations and usage thresholds; a renewal after the billing anchor
moved, a trial began or an update billed a new period; a renewal that came after the first one was voided or deleted.

The anomaly is of the subscription and the period. It ends when one invoice of the period is left.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from billingwatch.detection.detector import (
    EVIDENCE_LIMIT,
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

sql = load_statements(__file__, "double_invoice.sql")

LONGEST_INTERVAL = timedelta(days=3 * 366)  # that Stripe sells
SAME_RUN = timedelta(hours=12)  # invoices of one period that come within this of each other are one anomaly


class DoubleInvoice(Thresholds, frozen=True, kw_only=True):
    min_overlap: Annotated[float, threshold("Part of the interval that must be billed twice", unit="fraction", ge=0.02, le=1)] = 0.05


def _longest_interval(_: DoubleInvoice) -> timedelta:
    return LONGEST_INTERVAL


def _same_run(_: DoubleInvoice) -> timedelta:
    return SAME_RUN


def _parameters(thresholds: DoubleInvoice) -> tuple[object, ...]:
    return (thresholds.min_overlap, SAME_RUN, EVIDENCE_LIMIT)


def _judge(row: Row, _: DoubleInvoice) -> Incident:
    amounts = {row["currency"]: row["amount"]}
    period = f"{row['period_from']:%Y-%m-%d}"
    paid = "both paid" if row["both_paid"] else "the first before this history" if row["unseen"] else "not both paid"
    return Incident(
        subject=subject_of(f"{row['subscription_id']} {period}", row["account"]),
        opened_at=row["opened_at"],
        last_seen_at=row["last_seen_at"],
        ended_at=row["over_at"] and max(row["over_at"], row["last_seen_at"]),
        severity="critical" if row["both_paid"] else "warning",
        summary=f"Subscription {row['subscription_id']} of {row['customer_id'] or 'an unknown customer'} was invoiced {row['invoices']} times "
        f"for the period from {period}: {say_amounts(amounts)} too much, {paid}",
        amounts=amounts,
        evidence=evidence_of(
            since=row["first_at"],
            until=row["last_seen_at"],
            event_ids=row["event_ids"],
            events=row["invoices"],
            numbers={
                "invoices": row["invoices"],
                "amount": row["amount"],
                "currency": row["currency"],
                "both_paid": row["both_paid"],
                "overlap_days": round(row["overlap"] / timedelta(days=1), 2),
            },
            objects={"subscription": row["subscription_id"], "customer": row["customer_id"], "invoices": row["invoice_ids"]},
        ),
    )


DETECTOR = Detector(
    name="double_invoice",
    title="Double invoice",
    description="A subscription was invoiced twice for one period, or long before the next period was due.",
    thresholds=DoubleInvoice,
    watches={
        "invoices": Watch(
            columns=frozenset(
                {
                    "status",
                    "total",
                    "currency",
                    "billing_reason",
                    "subscription_id",
                    "lines",
                    "period_start_at",
                    "period_end_at",
                    "voided_at",
                    "created_at",
                }
            ),
            reach=_longest_interval,
        ),
        "subscription_states": Watch(columns=frozenset({"facts"}), reach=_longest_interval),
    },
    quiet=_same_run,
    settles=False,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
