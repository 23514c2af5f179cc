"""A subscription should have been invoiced at the turn of its period, and was not: revenue stops without any event to tell of it.

Each subscription item has a calendar: its period begins or ends, and an invoice that bills the new period is due. It is expected where the
subscription is charged for when the grace has passed: active or past due, collection not paused, not ending then, with a licensed item
that costs something (of a discounted or tiered one its last invoice tells). So trials, incomplete, free, metered and ended subscriptions
and those behind a full discount are left alone, and so is who has yet to pay an invoice that was sent. A period that is no whole interval
may be free, so only its end counts. Subscriptions of one customer are apart; one that was never invoiced at all counts from its creation.
An invoice that stays a draft for twice the grace blocks billing as silently.

A turn is known from whatever told of the subscription before it, so a renewal of which nothing at all is heard is missed, too. Of a period
that was told of later than an hour after it began, only the end counts: its invoice may have come before anything was heard. An instant is
judged by the states that began and the invoices that were made by then. Nothing is due before the first event about a subscription.
The anomaly is dated by the first full hour after the grace, and
ends when the invoice comes, or when the subscription ends or pauses, for as long as it is waited for.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from billingwatch.billing.money import format_money
from billingwatch.detection.detector import Detector, Incident, Row, Thresholds, Watch, evidence_of, subject_of, threshold
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "silent_lapse.sql")

STEP = timedelta(hours=1)
# In multiples of the grace, as the SQL has it, too.
AWAITED, DRAFTED = 7, 2
REMEMBERED = timedelta(days=3 * 366)  # the longest interval that Stripe sells


class SilentLapse(Thresholds, frozen=True, kw_only=True):
    grace_hours: Annotated[
        int,
        threshold(
            "An invoice is missing this long after its period began; a draft is stuck after twice as long", unit="hours", ge=6, le=240
        ),
    ] = 48


def _grace(thresholds: SilentLapse) -> timedelta:
    return timedelta(hours=thresholds.grace_hours)


def _awaited(thresholds: SilentLapse) -> timedelta:
    return AWAITED * _grace(thresholds)


def _reach(thresholds: SilentLapse) -> timedelta:
    return REMEMBERED + DRAFTED * _grace(thresholds) + STEP


def _parameters(thresholds: SilentLapse) -> tuple[object, ...]:
    return (_grace(thresholds),)


def _judge(row: Row, thresholds: SilentLapse) -> Incident:
    amount, currency = row["amount"], row["currency"]
    customer = row["customer_id"] or "an unknown customer"
    if row["draft_id"]:
        name = row["draft_id"]
        summary = f"Invoice {name} of {customer} is still a draft after {DRAFTED * thresholds.grace_hours} hours"
    else:
        name = f"{row['subscription_id']} {row['due_at']:%Y-%m-%d}"
        never = "" if row["last_invoice_id"] else ", nor ever before"
        summary = f"Subscription {row['subscription_id']} of {customer} was not invoiced on {row['due_at']:%Y-%m-%d}{never}"
    return Incident(
        subject=subject_of(name, row["account"]),
        opened_at=row["opened_at"],
        last_seen_at=row["last_seen_at"],
        ended_at=row["ended_at"],
        severity="warning",
        summary=f"{summary}; {format_money(amount, currency)} not collected",
        amounts={currency: amount},
        evidence=evidence_of(
            since=row["due_at"],
            until=row["last_seen_at"],
            event_ids=row["event_ids"],
            events=len(row["event_ids"]),
            numbers={"due_at": row["due_at"].isoformat(), "expected": amount, "currency": currency, "status": row["status"]},
            objects={
                "subscription": row["subscription_id"],
                "customer": row["customer_id"],
                "items": row["item_ids"],
                "draft": row["draft_id"],
                "last_invoice": row["last_invoice_id"],
            },
        ),
    )


DETECTOR = Detector(
    name="silent_lapse",
    title="Silent lapse",
    description="A subscription that should have been invoiced was not, or its invoice stays a draft.",
    thresholds=SilentLapse,
    watches={
        # Not the status: what pays or voids an invoice leaves it an invoice.
        "invoices": Watch(
            columns=frozenset(
                {"subscription_id", "billing_reason", "collection_method", "currency", "total", "lines", "finalized_at", "created_at"}
            ),
            reach=_reach,
        ),
        "subscription_states": Watch(columns=frozenset({"facts"}), reach=_reach),
    },
    quiet=_awaited,
    settles=False,
    every=STEP,
    warm_up=_grace,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
