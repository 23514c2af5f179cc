"""A card that pays for a subscription expires before the next renewal.

Judged once a day, on what was true then: subscriptions that are active and charge automatically, the payment method they would charge
(their own default, else the customer's), and that card's last month. A card is worth a word from so many days before its month ends, and
only once no renewal comes before that: until then it pays. Where no default is known, or a subscription will not renew, there is nothing
to say. Stripe sends `customer.source.expiring` for old sources only, never for payment methods, so the date is computed.

One anomaly per payment method and expiry. It becomes more severe as the day comes near, and ends the day after the card was replaced or
renewed, the subscriptions have ended, or the card has expired: then failing payments tell.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from billingwatch.detection.detector import (
    EVIDENCE_LIMIT,
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

sql = load_statements(__file__, "card_expiry.sql")

DAY = timedelta(days=1)
QUIET = DAY + timedelta(hours=1)  # the next day's verdict comes before it is over


class CardExpiry(Thresholds, frozen=True, kw_only=True):
    notice_days: Annotated[int, threshold("How long before the card expires it is told", unit="days", ge=1, le=90)] = 30
    warning_days: Annotated[int, threshold("Days before that make it a warning", unit="days", ge=0, le=90)] = 15
    critical_days: Annotated[int, threshold("Days before that make it critical", unit="days", ge=0, le=90)] = 7


def _notice(thresholds: CardExpiry) -> timedelta:
    return thresholds.notice_days * DAY


def _quiet(_: CardExpiry) -> timedelta:
    return QUIET


def _from_then_on(_: CardExpiry) -> timedelta:
    # A state holds until the next one, however long that takes.
    return timedelta.max


def _parameters(thresholds: CardExpiry) -> tuple[object, ...]:
    return (_notice(thresholds), QUIET, EVIDENCE_LIMIT)


def _judge(row: Row, thresholds: CardExpiry) -> Incident:
    left = row["expires_at"] - row["last_seen_at"]
    severity: Severity = "info"
    if left <= thresholds.critical_days * DAY:
        severity = "critical"
    elif left <= thresholds.warning_days * DAY:
        severity = "warning"
    card = " ".join(filter(None, (row["card_brand"] or "card", row["card_last4"])))
    month = row["expires_at"] - DAY
    sold = "a subscription" if row["subscriptions"] == 1 else f"{row['subscriptions']} subscriptions"
    return Incident(
        subject=subject_of(f"{row['payment_method_id']} {month:%Y-%m}", row["account"]),
        opened_at=row["opened_at"],
        last_seen_at=row["last_seen_at"],
        severity=severity,
        summary=f"The {card} of {row['customer_id']} expires at the end of {month:%Y-%m}, before {sold} of {say_amounts(row['amounts'])} a month "
        f"renews",
        amounts=row["amounts"],
        evidence=evidence_of(
            since=row["opened_at"],
            until=row["expires_at"],
            event_ids=row["event_ids"],
            events=row["subscriptions"],
            numbers={
                "days_left": left // DAY,
                "exp_month": month.month,
                "exp_year": month.year,
                "subscriptions": row["subscriptions"],
                "next_renewal_at": row["renews_at"].isoformat(),
            },
            objects={
                "payment_method": row["payment_method_id"],
                "customer": row["customer_id"],
                "subscriptions": row["subscription_ids"],
            },
        ),
    )


DETECTOR = Detector(
    name="card_expiry",
    title="Card expiry",
    description="Recurring revenue is charged to a card that expires before the next renewal.",
    thresholds=CardExpiry,
    watches={
        "subscription_states": Watch(columns=frozenset({"facts"}), reach=_from_then_on),
        "customer_states": Watch(columns=frozenset({"facts"}), reach=_from_then_on),
        "payment_method_states": Watch(columns=frozenset({"facts"}), reach=_from_then_on),
    },
    quiet=_quiet,
    settles=True,
    every=DAY,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
