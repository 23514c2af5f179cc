"""A customer was charged the same amount twice.

The same account, payer, amount and currency, in two payments that both succeeded and were captured, the second within a window of an
earlier one. No duplicates are: attempts of one payment, charges that name two different orders or go to two sellers, charges of two
invoices, a charge whose payer is unknown, and a charge made after the earlier one had been refunded in full. Charges of two invoices are
duplicates when they pay for two equal subscriptions that the customer began within the window.

At risk is what the payer paid beyond one payment (or beyond one for each order that is named), less refunds. It ends when no more
charges are kept than were owed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from billingwatch.billing.money import format_money
from billingwatch.detection.detector import EVIDENCE_LIMIT, Detector, Incident, Row, Thresholds, Watch, evidence_of, subject_of, threshold
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "duplicate_charge.sql")

CRITICAL_CHARGES = 3  # charges of one incident
INVOICED_BEFORE = timedelta(days=45)  # its payment; later ones are seldom


class DuplicateCharge(Thresholds, frozen=True, kw_only=True):
    window_minutes: Annotated[int, threshold("A repeated charge comes at most this long after the last", unit="minutes", ge=1, le=1440)] = (
        10
    )


def _window(thresholds: DuplicateCharge) -> timedelta:
    return timedelta(minutes=thresholds.window_minutes)


def _parameters(thresholds: DuplicateCharge) -> tuple[object, ...]:
    return (_window(thresholds), EVIDENCE_LIMIT, INVOICED_BEFORE)


def _two_windows(thresholds: DuplicateCharge) -> timedelta:
    # The subscription begins up to a window before its payment, which another may repeat a window later.
    return 2 * _window(thresholds)


def _judge(row: Row, _: DuplicateCharge) -> Incident:
    amount, currency = row["amount"], row["currency"]
    at_risk = max(row["amount_kept"] - row["owed"] * row["of_one"], 0)
    subscriptions = row["subscription_ids"][:EVIDENCE_LIMIT]
    bought = f" for subscriptions {' and '.join(subscriptions)}" if subscriptions else ""
    over = row["kept"] <= row["owed"]
    outcome = f"{format_money(at_risk, currency)} too much" if at_risk else "refunded since"
    return Incident(
        subject=subject_of(f"{row['payer']} {amount} {currency}", row["account"]),
        opened_at=row["opened_at"],
        last_seen_at=row["last_seen_at"],
        # A refund made before the last duplicate does not end what had not begun.
        ended_at=max(row["refunded_at"] or row["last_seen_at"], row["last_seen_at"]) if over else None,
        severity="critical" if row["same_order"] or row["charges"] >= CRITICAL_CHARGES else "warning",
        summary=f"{row['payer']} was charged {format_money(amount, currency)} {row['charges']} times{bought} "
        f"within {_span(row['last_seen_at'] - row['first_charged_at'])}; {outcome}",
        amounts={currency: at_risk},
        evidence=evidence_of(
            since=row["first_charged_at"],
            until=row["last_seen_at"],
            event_ids=row["event_ids"],
            events=row["charges"],
            numbers={
                "charges": row["charges"],
                "kept": row["kept"],
                "owed": row["owed"],
                "amount": amount,
                "currency": currency,
                "same_order": row["same_order"],
            },
            objects={"charges": row["charge_ids"], "payer": row["payer"], "subscriptions": subscriptions},
        ),
    )


def _span(duration: timedelta) -> str:
    if duration <= timedelta(seconds=1):
        return "a second"
    if duration < timedelta(minutes=2):
        return f"{duration // timedelta(seconds=1)} seconds"
    return f"{duration // timedelta(minutes=1)} minutes"


DETECTOR = Detector(
    name="duplicate_charge",
    title="Duplicate charge",
    description="A customer paid the same amount twice within minutes, in two payments that nothing tells apart.",
    thresholds=DuplicateCharge,
    watches={
        "charges": Watch(
            columns=frozenset(
                {
                    "status",
                    "captured",
                    "amount_captured",
                    "amount_refunded",
                    "refunds_failed",
                    "payer",
                    "payment_id",
                    "order_reference",
                    "destination",
                    "from_invoice",
                    "invoice_id",
                }
            ),
            reach=_window,
        ),
        "refunds": Watch(columns=frozenset({"status", "amount", "charge_id", "released"}), reach=_window),
        "subscription_states": Watch(columns=frozenset({"facts"}), reach=_two_windows),
    },
    quiet=_window,
    settles=False,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
