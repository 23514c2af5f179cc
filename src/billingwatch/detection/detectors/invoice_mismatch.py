"""A finalized invoice says something else than its subscription, its lines and its discounts explain.

Three sums must agree: a recurring line with what its subscription item cost when the line's period began, the lines with the subtotal, and
the total with subtotal, discounts, credit grants and the tax that is added on top. What cannot be known is not judged: tiers, usage,
prorations, periods that are no whole interval, lists that Stripe cut short, shipping.

A change of price may be told within the same minute as the renewal, so any state of the subscription from the beginning of the line's
period until a minute after the invoice was made explains it. The anomaly is dated by that minute, and ends when the invoice is voided.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from billingwatch.billing.money import format_money
from billingwatch.detection.detector import Detector, Incident, Row, Thresholds, Watch, evidence_of, no_time, subject_of, threshold
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "invoice_mismatch.sql")

SETTLING = timedelta(minutes=1)  # Stripe dates what happens together within seconds; the candidates know it, too
LONGEST_INTERVAL = timedelta(days=3 * 366)  # that Stripe sells


class InvoiceMismatch(Thresholds, frozen=True, kw_only=True):
    min_difference: Annotated[
        int, threshold("Difference that is no rounding", unit="minor units", ge=1, le=1_000_000_000)
    ] = 2  # fmt: skip


def _settling(_: InvoiceMismatch) -> timedelta:
    return SETTLING


def _in_force(_: InvoiceMismatch) -> timedelta:
    return LONGEST_INTERVAL


def _parameters(thresholds: InvoiceMismatch) -> tuple[object, ...]:
    return (SETTLING, thresholds.min_difference)


def _judge(row: Row, _: InvoiceMismatch) -> Incident:
    currency, at_risk = row["currency"], row["at_risk"]
    too_much = row["too_much"]
    return Incident(
        subject=subject_of(row["invoice_id"], row["account"]),
        opened_at=row["judged_at"],
        last_seen_at=row["judged_at"],
        ended_at=row["withdrawn_at"] and max(row["withdrawn_at"], row["judged_at"]),
        severity="critical" if too_much and row["status"] == "paid" else "warning",
        summary=f"Invoice {row['number'] or row['invoice_id']} of {row['customer_id'] or 'an unknown customer'} is "
        f"{format_money(at_risk, currency)} {'more' if too_much else 'less'} than {_explanation(row)} explain",
        amounts={currency: at_risk},
        evidence=evidence_of(
            since=row["created_at"],
            until=row["judged_at"],
            event_ids=row["event_ids"],
            events=len(row["event_ids"]),
            numbers={
                "total": row["total"],
                "subtotal": row["subtotal"],
                "discount": row["discount_amount"],
                "tax": row["tax_amount"],
                "currency": currency,
                "lines": row["wrong_lines"] or [],
                "lines_differ_by": row["lines_off"],
                "subtotal_differs_by": row["subtotal_off"],
                "total_differs_by": row["total_off"],
            },
            objects={"invoice": row["invoice_id"], "customer": row["customer_id"], "subscription": row["subscription_id"]},
        ),
    )


def _explanation(row: Row) -> str:
    if row["wrong_lines"]:
        return "the subscription's items"
    return "its lines" if row["subtotal_off"] is not None else "its subtotal, discounts and tax"


DETECTOR = Detector(
    name="invoice_mismatch",
    title="Invoice mismatch",
    description="A finalized invoice differs from what the subscription's items, quantities, discounts and prorations explain.",
    thresholds=InvoiceMismatch,
    watches={
        "invoices": Watch(
            columns=frozenset(
                {
                    "status",
                    "total",
                    "subtotal",
                    "currency",
                    "lines",
                    "discount_amount",
                    "tax_amount",
                    "subscription_id",
                    "finalized_at",
                    "voided_at",
                    "created_at",
                }
            ),
            reach=_settling,
        ),
        "subscription_states": Watch(columns=frozenset({"facts"}), reach=_in_force),
    },
    quiet=no_time,
    settles=False,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
