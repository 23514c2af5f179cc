"""A subscription is worth less than before: a cheaper plan, fewer seats, or an item less.

Two consecutive states of one subscription are compared by what they cost in a month before discounts, so that renewals, coupons that end
and another order of the items are none, nor is another interval at the same monthly amount. Whoever moves to a longer interval commits
himself and gets a discount for it: that is none either, unless less is left than a discount explains. Nothing is compared with a state
whose monthly amount is not known, in another currency, or that is not live; a trial is over before it counts. An item that is taken
out and put back within minutes was a swap in two steps.

It ends when the subscription is back at its old level, and otherwise when it has been quiet for some days.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from billingwatch.billing.money import format_money
from billingwatch.detection.detector import (
    EVIDENCE_LIMIT,
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
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "plan_downgrade.sql")

# The tenant's MRR is taken from the subscriptions heard of last: all of a small tenant's, a fair number of a large one's.
KNOWN_SAMPLE, KNOWN_MIN = 300, 10


class PlanDowngrade(Thresholds, frozen=True, kw_only=True):
    min_share: Annotated[float, threshold("Part of the monthly amount that must be lost", unit="fraction", ge=0.001, le=1)] = 0.05
    warning_share: Annotated[float, threshold("Part of the monthly amount whose loss is a warning", unit="fraction", ge=0.01, le=1)] = 0.75
    warning_mrr_share: Annotated[
        float,
        threshold(
            "Part of the monthly amount of all subscriptions heard of lately whose loss is a warning", unit="fraction", ge=0.001, le=1
        ),
    ] = 0.1
    commitment_discount: Annotated[
        float, threshold("Discount that a move to a longer interval explains", unit="fraction", ge=0, le=0.9)
    ] = 0.35
    grace_minutes: Annotated[int, threshold("A downgrade that is taken back this soon is none", unit="minutes", ge=0, le=1440)] = 10
    settle_days: Annotated[int, threshold("Quiet after which it counts as accepted", unit="days", ge=1, le=30)] = 3


def _quiet(thresholds: PlanDowngrade) -> timedelta:
    # Never shorter than the grace, within which a later state takes back a verdict.
    return timedelta(days=thresholds.settle_days)


def _reach(_: PlanDowngrade) -> timedelta:
    # A late state comes between two that were compared.
    return LATENESS


def _parameters(thresholds: PlanDowngrade) -> tuple[object, ...]:
    return (
        _quiet(thresholds),
        timedelta(minutes=thresholds.grace_minutes),
        thresholds.min_share,
        thresholds.commitment_discount,
        LATENESS,
        KNOWN_SAMPLE,
        EVIDENCE_LIMIT,
    )


def _judge(row: Row, thresholds: PlanDowngrade) -> Incident:
    before, after, currency = row["mrr_before"], row["mrr_after"], row["currency"]
    lost = before - after
    large = lost >= before * thresholds.warning_share
    if row["known_subscriptions"] >= KNOWN_MIN:
        large = large or lost >= row["known_mrr"] * thresholds.warning_mrr_share
    seats = row["quantity_before"], row["quantity_after"]
    fewer = f" ({seats[0]} → {seats[1]} seats)" if None not in seats and seats[1] < seats[0] else ""
    outcome = ", since then back at its old level" if row["returned_at"] else ""
    return Incident(
        subject=subject_of(row["subscription_id"], row["account"]),
        opened_at=row["opened_at"],
        last_seen_at=row["last_seen_at"],
        ended_at=row["returned_at"] and max(row["returned_at"], row["last_seen_at"]),
        severity="warning" if large else "info",
        summary=f"{row['customer_id'] or 'A customer'} went down from {format_money(before, currency)} to {format_money(after, currency)} "
        f"a month{fewer}{outcome}",
        amounts={currency: lost},
        evidence=evidence_of(
            since=row["opened_at"],
            until=row["last_seen_at"],
            event_ids=row["event_ids"],
            events=row["downgrades"],
            numbers={
                "mrr_before": before,
                "mrr_after": after,
                "currency": currency,
                "share_lost": round(lost / before, 4),
                "quantity_before": seats[0],
                "quantity_after": seats[1],
                "downgrades": row["downgrades"],
                "known_mrr": row["known_mrr"],
                "known_subscriptions": row["known_subscriptions"],
            },
            objects={
                "subscription": row["subscription_id"],
                "customer": row["customer_id"],
                "prices_before": row["prices_before"],
                "prices_after": row["prices_after"],
            },
        ),
    )


DETECTOR = Detector(
    name="plan_downgrade",
    title="Plan downgrade",
    description="A subscription's monthly amount really falls: a cheaper plan, fewer seats, an item less; never an upgrade or a renewal.",
    thresholds=PlanDowngrade,
    watches={"subscription_states": Watch(columns=frozenset({"facts"}), reach=_reach)},
    quiet=_quiet,
    settles=True,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
