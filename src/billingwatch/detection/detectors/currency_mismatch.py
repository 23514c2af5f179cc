"""A customer is charged in a currency that is not theirs.

A customer whose payments so far were all in one currency, at least so many and begun at least so many days before, pays in another one for
the first time. Only charges count: an invoice and the charge that pays it are one payment. Once is enough to be told, and a customer who
has paid in two currencies has both. What the buyer was shown (`presentment_details`) is not what was charged. Guests have no history.

Stripe keeps a currency for the customer's invoices: where that was the usual one, a single earlier payment will do, and where it has been
the new one for a day, the customer was moved there on purpose. It ends when the charge is refunded in full.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from billingwatch.billing.money import format_money
from billingwatch.billing.states import FIRST_CHARGES
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

sql = load_statements(__file__, "currency_mismatch.sql")

# A bank debit succeeds so long after it was made; its date then lies before payments that were judged without it.
SETTLING = timedelta(days=21)
MOVED = timedelta(days=1)


class CurrencyMismatch(Thresholds, frozen=True, kw_only=True):
    min_charges: Annotated[int, threshold("Earlier payments needed, all in another currency", unit="payments", ge=1, le=FIRST_CHARGES)] = 2
    min_days: Annotated[int, threshold("How long before the first of them must have been", unit="days", ge=0, le=365)] = 2


def _reach(_: CurrencyMismatch) -> timedelta:
    return SETTLING + LATENESS


def _reach_of_customer(_: CurrencyMismatch) -> timedelta:
    return LATENESS


def _parameters(thresholds: CurrencyMismatch) -> tuple[object, ...]:
    return (thresholds.min_charges, timedelta(days=thresholds.min_days), MOVED, FIRST_CHARGES)


def _judge(row: Row, _: CurrencyMismatch) -> Incident:
    created_at, amount, currency, usual = row["created_at"], row["amount"], row["currency"], row["usual_currency"]
    kept = max(row["amount_kept"], 0)
    # The number is a usual one: nobody has converted it.
    number = f", the number that they paid in {usual.upper()}" if row["same_number"] else ""
    return Incident(
        subject=subject_of(f"{row['customer_id']} {currency}", row["account"]),
        opened_at=created_at,
        last_seen_at=created_at,
        ended_at=None if kept else max(row["updated_at"], created_at),
        severity="critical" if row["same_number"] else "warning",
        summary=f"{row['customer_id']}, who has always paid in {usual.upper()}, was charged {format_money(amount, currency)}{number}",
        amounts={currency: kept},
        evidence=evidence_of(
            since=row["first_at"],
            until=created_at,
            event_ids=[row["event_id"]],
            events=1,
            numbers={
                "amount": amount,
                "currency": currency,
                "usual_currency": usual,
                # No more than the first are kept.
                "earlier_payments": row["earlier_payments"],
                "first_paid_at": row["first_at"].isoformat(),
                "currency_of_customer": row["customer_currency"],
                "same_number": row["same_number"],
            },
            objects={"charge": row["charge_id"], "customer": row["customer_id"], "earlier_charges": row["earlier_charge_ids"]},
        ),
    )


DETECTOR = Detector(
    name="currency_mismatch",
    title="Currency mismatch",
    description="A customer is charged in another currency than the one they have always paid in.",
    thresholds=CurrencyMismatch,
    watches={
        # By what became of the charge itself, and by what the customer is found to have paid before.
        "charges": Watch(
            columns=frozenset({"status", "customer_id", "amount", "captured", "amount_captured", "amount_refunded", "refunds_failed"}),
            reach=no_time,
        ),
        "first_charge_states": Watch(columns=frozenset({"facts"}), reach=_reach),
        "customer_states": Watch(columns=frozenset({"facts"}), reach=_reach_of_customer),
    },
    quiet=no_time,
    settles=False,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
