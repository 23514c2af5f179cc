"""Far less money comes in than at the same hours of the same weekday in the weeks before.

Judged every hour on the window before it, on its last quarter and on twice its length, so that a checkout that stopped working shows within
hours where sales are steady, and one that loses a part of few sales shows within days. What is usual is the median of the weeks before:
one month's start, one round of annual renewals or one outage among them changes nothing, and a day without sales counts as zero. It is a drop when the amount fell by at least so
much and chance does not explain it: neither how far other weeks fell short of the usual, nor that few weeks say what that is, nor that few payments
vary, nor that some are large. Weeks that sold more than usual explain nothing: a sale among them hides no drop.

Money counts when a customer pays or authorizes it, and nothing that is decided later takes it back: neither a refund, nor an authorization
that expires, nor a bank debit or a voucher that fails days after. So a payment weighs the same now as in the weeks to come, and what was
judged stays judged. An outage that is over is not judged on: the last quarter of the window must be low as well, and of twice its length the
last half. What is odd about one day, a public holiday say, weighs less in two.

Accounts and currencies are judged apart, and amounts of different currencies never added up. But a checkout is one for all of them: how
many payments fewer there are in all currencies together may be the proof that a currency's own are too few for. With less than three weeks
of charges before the window it is learning; three are enough if they agree.

A public holiday is no drop, and nobody tells us of it. It may take two payments in five, and begins with the day: so the last quarter of the
window counts only where surely more are missing, or where as many as ever paid in the hours before it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from billingwatch.billing.money import format_money
from billingwatch.detection.detector import EVIDENCE_LIMIT, Detector, Incident, Row, Thresholds, Watch, evidence_of, subject_of, threshold
from billingwatch.postgres.statements import load_statements

sql = load_statements(__file__, "revenue_drop.sql")

HOUR, WEEK = timedelta(hours=1), timedelta(weeks=1)
WEEKS_MIN = 3
# Decided days after they were made; until then they are pending.
DELAYED_METHODS = (
    "ach_debit",
    "acss_debit",
    "au_becs_debit",
    "bacs_debit",
    "boleto",
    "customer_balance",
    "konbini",
    "multibanco",
    "nz_bank_account",
    "oxxo",
    "payto",
    "sepa_debit",
    "sofort",
    "us_bank_account",
)
RECENT = 4  # part of the window that shows whether it is over
UNEXPLAINED = 0.1  # of what is usual: how much a steady business may vary from week to week all the same
UNEXPLAINED_OF_ONE = 0.14  # the same of one currency, whose share varies besides
ALTOGETHER = 0.5  # of the payments of all currencies: as a proof about one, so many must be missing
HOLIDAY = 0.4  # of the payments of all currencies: a public holiday takes up to so many
BEYOND_HOLIDAY = 3.0  # standard deviations: how surely those of the last quarter of the window are fewer than a holiday's
RECOVERED = 0.75  # of what is usual
EARLIER_BUSY = 0.75  # of the payments usual in the last quarter of the window: so many must be usual in as many hours before it, to tell
EARLIER_NORMAL = 0.85  # of what is usual in those: then the day began as ever, and is no holiday
EXCESS = 0.15  # of the variance of chance alone: by how much weeks vary more, as long as few of them tell
EXCESS_WEEKS = 6  # that many of them tell as much as is assumed


class RevenueDrop(Thresholds, frozen=True, kw_only=True):
    window_hours: Annotated[
        int, threshold("Revenue is added up over this long, a quarter of it and twice of it", unit="hours", ge=4, le=168)
    ] = 24
    baseline_weeks: Annotated[int, threshold("Weeks before that say what is usual", unit="weeks", ge=3, le=12)] = 6
    min_drop: Annotated[float, threshold("Part of the usual revenue that must be missing", unit="fraction", ge=0.2, le=1)] = 0.4
    critical_drop: Annotated[float, threshold("Missing part that makes it critical", unit="fraction", ge=0.2, le=1)] = 0.8
    min_payments: Annotated[int, threshold("Payments usual in the window", unit="payments", ge=5, le=100_000)] = 12
    min_strength: Annotated[float, threshold("How surely it must be no accident", unit="standard deviations", ge=2, le=20)] = 3.75


def _window(thresholds: RevenueDrop) -> timedelta:
    return timedelta(hours=thresholds.window_hours)


def _recent(thresholds: RevenueDrop) -> timedelta:
    return timedelta(hours=thresholds.window_hours // RECENT)


def _long(thresholds: RevenueDrop) -> timedelta:
    # Longer than a week, it would be part of the week that it is compared with.
    return min(2 * _window(thresholds), WEEK)


def _quiet(thresholds: RevenueDrop) -> timedelta:
    # Neither a quiet night within an outage makes two of it, nor the time from when some hours tell of it until the whole window does.
    return max(_window(thresholds) * 2 // 3, 3 * HOUR)


def _reach(thresholds: RevenueDrop) -> timedelta:
    # The week before the baseline tells whether there is enough history.
    return (thresholds.baseline_weeks + 1) * WEEK + _long(thresholds)


def _warm_up(thresholds: RevenueDrop) -> timedelta:
    return WEEKS_MIN * WEEK + _window(thresholds)


def _parameters(thresholds: RevenueDrop) -> tuple[object, ...]:
    return (
        _window(thresholds),
        _recent(thresholds),
        thresholds.baseline_weeks,
        WEEKS_MIN,
        thresholds.min_payments,
        thresholds.min_drop,
        thresholds.min_strength,
        UNEXPLAINED,
        RECOVERED,
        _quiet(thresholds),
        EVIDENCE_LIMIT,
        DELAYED_METHODS,
        _long(thresholds),
        UNEXPLAINED_OF_ONE,
        ALTOGETHER,
        HOLIDAY,
        BEYOND_HOLIDAY,
        EARLIER_BUSY,
        EARLIER_NORMAL,
        EXCESS_WEEKS,
        EXCESS,
    )


def _judge(row: Row, thresholds: RevenueDrop) -> Incident:
    currency, seen, usual = row["currency"], row["amount"], row["usual"]
    hours = row["length"] // HOUR
    return Incident(
        subject=subject_of(currency, row["account"]),
        opened_at=row["opened_at"],
        last_seen_at=row["last_seen_at"],
        severity="critical" if row["deepest"] >= thresholds.critical_drop else "warning",
        summary=f"{format_money(seen, currency)} came in within {hours} hours until {row['peak_at']:%Y-%m-%d %H:%M} UTC, "
        f"usually {format_money(usual, currency)} ({1 - seen / usual:.0%} less)",
        amounts={currency: usual - seen},
        evidence=evidence_of(
            since=row["opened_at"] - row["length"],
            until=row["last_seen_at"],
            event_ids=row["event_ids"],
            events=row["payments"],
            numbers={
                "peak_at": row["peak_at"].isoformat(),
                "window_hours": hours,
                "amount": seen,
                "usual_amount": usual,
                "currency": currency,
                "payments": row["payments"],
                "usual_payments": row["usual_payments"],
                "payments_in_all_currencies": row["payments_of_all"],
                "usual_payments_in_all_currencies": row["usual_payments_of_all"],
                "amounts_of_weeks_before": row["amounts"],
                "payments_of_weeks_before": row["counts"],
                "strength": round(row["strength"], 2),
            },
            objects={"charges": row["charge_ids"]},
        ),
    )


DETECTOR = Detector(
    name="revenue_drop",
    title="Revenue drop",
    description="Far less money comes in than at the same hours of the same weekday in the weeks before.",
    thresholds=RevenueDrop,
    watches={
        # Not its status: what a payment counts does not change with it.
        "charges": Watch(columns=frozenset({"amount", "currency", "created_at"}), reach=_reach)
    },
    quiet=_quiet,
    settles=True,
    every=HOUR,
    warm_up=_warm_up,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
