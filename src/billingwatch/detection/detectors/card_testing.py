"""Somebody tries out stolen cards.

Four traces of it, each within minutes: Radar blocks far more attempts than it usually does here; one card is refused again and again; one
customer is refused with card after card; many cards are refused over amounts that are small for this tenant. Attempts to collect invoices
count for the first alone, for a run of reminders refuses many cards, or one card many times, and tries nothing out. So a customer who types
a number wrongly a few times, a day of renewals and a rule of Radar's that blocks now and then are none.

One incident is a campaign, whatever its traces, of an account. What is usual, and what is small, comes from a sample of the days before,
and ends three days earlier. At risk is what was paid with cards that had been refused: such cards are sold.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from billingwatch.detection.detector import (
    EVIDENCE_LIMIT,
    LATENESS,
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

sql = load_statements(__file__, "card_testing.sql")

QUIET = timedelta(hours=2)  # a campaign that pauses for less goes on
BASELINE_SAMPLE = 100  # charges of each day
# What is assumed of a tenant without history; it weighs as much as this many attempts.
PRIOR_RATE, PRIOR_ATTEMPTS = 0.01, 100
SMALL_SAMPLE = 50  # payments of a currency from which on the smallest tenth of them tells what is small


class CardTesting(Thresholds, frozen=True, kw_only=True):
    window_minutes: Annotated[int, threshold("Attempts are counted over this long", unit="minutes", ge=5, le=120)] = 30
    min_blocked: Annotated[int, threshold("Attempts blocked by Radar needed", unit="attempts", ge=3, le=100_000)] = 12
    min_blocked_rate: Annotated[float, threshold("Share of attempts blocked needed, whatever is usual", unit="fraction", ge=0.01, le=1)] = (
        0.15
    )
    baseline_factor: Annotated[float, threshold("Share blocked needed, as a multiple of the usual", unit="factor", ge=1, le=100)] = 3.0
    min_strength: Annotated[float, threshold("How surely it must be no accident", unit="standard deviations", ge=2, le=20)] = 4.0
    min_card_attempts: Annotated[int, threshold("Refusals of one card needed", unit="attempts", ge=3, le=1000)] = 10
    min_customer_cards: Annotated[int, threshold("Cards of one customer needed that were refused", unit="cards", ge=2, le=1000)] = 5
    min_cards: Annotated[int, threshold("Cards needed that were refused over small amounts", unit="cards", ge=3, le=100_000)] = 15
    baseline_days: Annotated[int, threshold("Days that the usual is taken from", unit="days", ge=3, le=60)] = 14
    critical_attempts: Annotated[int, threshold("Attempts that make it critical", unit="attempts", ge=3, le=1_000_000)] = 100


def _window(thresholds: CardTesting) -> timedelta:
    return timedelta(minutes=thresholds.window_minutes)


def _reach(thresholds: CardTesting) -> timedelta:
    # An attempt takes the next one on its card for a repetition, which then counts no more in the window after it.
    return 2 * _window(thresholds)


def _quiet(thresholds: CardTesting) -> timedelta:
    return max(QUIET, _window(thresholds))


def _parameters(thresholds: CardTesting) -> tuple[object, ...]:
    return (
        _window(thresholds),
        _quiet(thresholds),
        thresholds.min_blocked,
        thresholds.min_blocked_rate,
        thresholds.baseline_factor,
        thresholds.min_strength,
        thresholds.min_card_attempts,
        thresholds.min_customer_cards,
        thresholds.min_cards,
        thresholds.baseline_days,
        LATENESS,
        BASELINE_SAMPLE,
        PRIOR_ATTEMPTS,
        PRIOR_RATE,
        SMALL_SAMPLE,
        EVIDENCE_LIMIT,
    )


def _judge(row: Row, thresholds: CardTesting) -> Incident:
    amounts = row["amounts"] or {}
    attempts = row["blocked"] + row["declined"] + row["succeeded"]
    paid = f", {row['succeeded']} succeeded; {say_amounts(amounts)} at risk" if amounts else f", {row['succeeded']} succeeded"
    return Incident(
        subject=subject_of("cards", row["account"]),
        opened_at=row["opened_at"],
        last_seen_at=row["last_seen_at"],
        severity="critical" if amounts or attempts >= thresholds.critical_attempts else "warning",
        summary=f"{attempts} attempts{_on_cards(row['cards'])} within {_span(row['last_seen_at'] - row['began_at'])}: "
        f"{row['blocked']} blocked by Radar, {row['declined']} declined{paid}",
        amounts=amounts,
        evidence=evidence_of(
            since=row["began_at"],
            until=row["last_seen_at"],
            event_ids=row["event_ids"],
            events=attempts,
            numbers={
                "attempts": attempts,
                "blocked": row["blocked"],
                "declined": row["declined"],
                "succeeded": row["succeeded"],
                "cards": row["cards"],
                "decline_codes": row["decline_codes"],
                "traces": row["traces"],
                "usual_blocked_rate": round(row["usual_blocked_rate"], 4),
            },
            objects={"charges": row["charge_ids"], "succeeded": row["succeeded_ids"] or [], "cards": row["fingerprints"] or []},
        ),
    )


def _on_cards(cards: int) -> str:
    return "" if cards == 0 else " on one card" if cards == 1 else f" on {cards} cards"


def _span(duration: timedelta) -> str:
    minutes = -(-duration // timedelta(minutes=1))
    return "a minute" if minutes <= 1 else f"{minutes} minutes"


DETECTOR = Detector(
    name="card_testing",
    title="Card testing",
    description="Somebody tries out stolen cards: refused in quick succession, or blocked by Radar far more often than usual.",
    thresholds=CardTesting,
    watches={
        "charges": Watch(
            columns=frozenset(
                {
                    "status",
                    "outcome_type",
                    "card_fingerprint",
                    "customer_id",
                    "from_invoice",
                    "amount_captured",
                    "amount_refunded",
                    "refunds_failed",
                }
            ),
            reach=_reach,
        )
    },
    quiet=_quiet,
    settles=True,
    candidates=sql["candidates"],
    incidents=sql["incidents"],
    parameters=_parameters,
    judge=_judge,
)
