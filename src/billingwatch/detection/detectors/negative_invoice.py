"""A finalized invoice has a negative total: the customer is owed money for being billed.

Stripe shows it as `total` < 0, with nothing due and nothing paid; a draft is not final. A downgrade credits what was paid in advance, so
invoices of a subscription update, and totals that only prorations made negative, are as they should be. The anomaly is dated by the
invoice's creation, which never changes, and ends when the invoice is voided.
"""

from __future__ import annotations

from typing import Annotated

from billingwatch.billing.money import format_money
from billingwatch.detection.detector import Detector, Incident, Row, Thresholds, Watch, evidence_of, no_time, subject_of, threshold
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "negative_invoice.sql")


class NegativeInvoice(Thresholds, frozen=True, kw_only=True):
    min_amount: Annotated[int, threshold("Credit that is worth an anomaly", unit="minor units", ge=1, le=1_000_000_000)] = 1


def _parameters(thresholds: NegativeInvoice) -> tuple[object, ...]:
    return (thresholds.min_amount,)


def _judge(row: Row, _: NegativeInvoice) -> Incident:
    created_at, total, currency = row["created_at"], row["total"], row["currency"]
    return Incident(
        subject=subject_of(row["invoice_id"], row["account"]),
        opened_at=created_at,
        last_seen_at=created_at,
        ended_at=row["withdrawn_at"] and max(row["withdrawn_at"], created_at),
        severity="warning",
        summary=f"Invoice {row['number'] or row['invoice_id']} of {row['customer_id'] or 'an unknown customer'} was finalized at {format_money(total, currency)}",
        amounts={currency: -total},
        evidence=evidence_of(
            since=created_at,
            until=row["finalized_at"] or created_at,
            event_ids=[row["event_id"]],
            events=1,
            numbers={"total": total, "currency": currency, "billing_reason": row["billing_reason"], "status": row["status"]},
            objects={"invoice": row["invoice_id"], "customer": row["customer_id"], "subscription": row["subscription_id"]},
        ),
    )


DETECTOR: Detector[NegativeInvoice] = Detector(
    name="negative_invoice",
    title="Negative invoice",
    description="An invoice was finalized with a negative total that no downgrade explains.",
    thresholds=NegativeInvoice,
    watches={
        "invoices": Watch(
            columns=frozenset(
                {"status", "total", "subtotal", "currency", "billing_reason", "lines", "finalized_at", "voided_at", "created_at"}
            ),
            reach=no_time,
        )
    },
    quiet=no_time,
    settles=False,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
