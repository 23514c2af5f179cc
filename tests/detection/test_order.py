"""The same history gives the same anomalies, in whatever order and split Stripe delivers it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billingwatch.billing.rows import Row
from billingwatch.detection.detector import Thresholds
from billingwatch.detection.detectors.card_testing import CardTesting
from billingwatch.detection.detectors.charge_failure_spike import ChargeFailureSpike
from billingwatch.detection.detectors.churn_spike import ChurnSpike
from billingwatch.detection.detectors.currency_mismatch import CurrencyMismatch
from billingwatch.detection.detectors.delivery_storm import DeliveryStorm
from billingwatch.detection.detectors.dispute_opened import DisputeOpened
from billingwatch.detection.detectors.duplicate_charge import DuplicateCharge
from billingwatch.detection.detectors.fraud_spike import FraudSpike
from billingwatch.detection.detectors.large_refund import LargeRefund
from billingwatch.detection.detectors.plan_downgrade import PlanDowngrade
from billingwatch.detection.detectors.refund_spike import RefundSpike
from billingwatch.detection.detectors.revenue_drop import RevenueDrop
from billingwatch.detection.detectors.silent_lapse import SilentLapse
from billingwatch.detection.detectors.webhook_lag import WebhookLag
from billingwatch.detection.detectors.webhook_silence import WebhookSilence
from billingwatch.detection.store import Anomaly
from billingwatch.postgres.connections import TenantConnection

from .episodes import EPISODES, heard
from .history import DAY, LATER, Delivery, History, at

# Low, so that small histories have many incidents that begin, grow, merge and end. The others are as low by default.
LOW: Mapping[str, Thresholds] = {
    "card_testing": CardTesting(
        window_minutes=20,
        min_blocked=3,
        min_blocked_rate=0.1,
        baseline_factor=1.2,
        min_strength=2,
        min_card_attempts=3,
        min_customer_cards=2,
        min_cards=3,
        baseline_days=3,
        critical_attempts=6,
    ),
    "charge_failure_spike": ChargeFailureSpike(
        window_minutes=60, min_attempts=5, min_failures=2, baseline_days=3, min_strength=2, baseline_factor=1.2
    ),
    "churn_spike": ChurnSpike(window_days=1, min_ended=3, baseline_factor=1, min_strength=1),
    "currency_mismatch": CurrencyMismatch(min_charges=1, min_days=0),
    "delivery_storm": DeliveryStorm(min_deliveries=3, min_events=2, min_deliveries_of_one=6, critical_events=5),
    "dispute_opened": DisputeOpened(large_factor=1),
    "duplicate_charge": DuplicateCharge(window_minutes=20),
    "fraud_spike": FraudSpike(window_days=1, min_cases=3, min_rate=0.02, surge_cases=2, baseline_days=7, min_strength=1),
    "large_refund": LargeRefund(min_amount=1, median_factor=1, large_factor=0.5, baseline_days=7),
    "plan_downgrade": PlanDowngrade(min_share=0.01, warning_mrr_share=0.01, settle_days=1),
    "refund_spike": RefundSpike(window_hours=6, min_refunds=3, baseline_factor=1.2, min_strength=2, baseline_days=3),
    "revenue_drop": RevenueDrop(window_hours=8, baseline_weeks=3, min_drop=0.3, min_payments=5, min_strength=2),
    "silent_lapse": SilentLapse(grace_hours=6),
    "webhook_lag": WebhookLag(
        window_hours=2, min_events=3, stripe_median_seconds=60, stripe_p90_seconds=600, network_median_seconds=5, network_p90_seconds=30
    ),
    "webhook_silence": WebhookSilence(min_bursts=5, min_hours=2, baseline_weeks=3),
}
LATENESS = 3 * DAY  # minutes that Stripe delivers late
# What is not a function of history: identity and bookkeeping. A row that says nothing new still takes its newest event's id and date.
BOOKKEEPING = ("anomaly_id", "detected_at", "updated_at", "resolved_at", "historical")


def delivered(random: Random, *, days: int, episodes: int) -> list[tuple[float, Row]]:
    """What happened in some days, in the order in which it arrives: each event up to three days late."""
    arrivals: list[tuple[float, Row]] = []
    for number in range(episodes):
        # Some begin together, so that incidents meet.
        start = 5 * round(random.choice((0, 60, random.uniform(0, days * DAY))) / 5)
        for happened, row in random.choice(EPISODES)(random, f"e{number}", start):
            arrivals.append((happened + random.choice((0, 0, random.uniform(0, LATENESS))), row))
    return sorted(arrivals, key=lambda arrival: arrival[0])


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """A visit with some rows, and whether the detectors of time are due after it."""

    rows: Sequence[Row]
    until: datetime
    ticks: bool


def in_visits_of(random: Random, arrivals: Sequence[tuple[float, Row]], *, most: int) -> Iterator[Moment]:
    position = 0
    while position < len(arrivals):
        end = position + random.randint(1, most)
        last = arrivals[min(end, len(arrivals)) - 1][0]
        # What arrives at the very instant is there before the instant is judged.
        is_over = end >= len(arrivals) or arrivals[end][0] > last
        yield Moment(rows=[row for _, row in arrivals[position:end]], until=at(last), ticks=is_over and random.random() < 0.3)
        position = end


def by_history(anomaly: Anomaly) -> dict[str, Any]:
    said = msgspec.structs.asdict(anomaly)
    evidence = {name: value for name, value in said.pop("evidence").items() if name != "event_ids"}
    return {**{name: value for name, value in said.items() if name not in BOOKKEEPING}, "evidence": evidence}


async def anomalies_after(
    tenant: TenantConnection, moments: Sequence[Moment], deliveries: Sequence[Delivery], end: datetime
) -> list[dict[str, Any]]:
    history = History(tenant)
    history.thresholds = LOW
    history.judged_until = at(-DAY)
    await tenant.execute("SAVEPOINT untouched")
    waiting = list(deliveries)
    for moment in (*moments, Moment(rows=(), until=end, ticks=True)):
        await history.see(*moment.rows)
        if moment.ticks:
            await history.receive(*(each for each in waiting if each.received_at <= moment.until))
            waiting = [each for each in waiting if each.received_at > moment.until]
            await history.tick(moment.until)
    await history.settle(as_of=LATER)
    found = [by_history(anomaly) for anomaly in await history.anomalies()]
    await tenant.execute("ROLLBACK TO SAVEPOINT untouched")
    return sorted(found, key=lambda said: (said["detector"], said["fingerprint"]))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), days=st.sampled_from([1, 3, 25]), episodes=st.integers(1, 6), most=st.integers(1, 20))
async def test_any_order_and_split_that_stripe_may_deliver_gives_the_same_anomalies(
    tenant_connection: TenantConnection, seed: int, days: int, episodes: int, most: int
):
    random = Random(seed)
    arrivals = delivered(random, days=days, episodes=episodes)
    deliveries = heard(random, days=random.choice((0, 2, 30)))
    rows = [row for _, row in arrivals]
    again = random.sample(rows, len(rows) // 4)
    end = max([at(arrivals[-1][0]), *(each.received_at for each in deliveries)]) + timedelta(hours=7)
    # Long histories in larger pieces, so that they are not hundreds of visits.
    most = max(most, len(arrivals) // 20)

    in_one_go = await anomalies_after(tenant_connection, [Moment(rows=rows, until=end, ticks=False)], deliveries, end)
    in_visits = [*in_visits_of(random, arrivals, most=most), Moment(rows=again, until=end, ticks=False)]

    assert await anomalies_after(tenant_connection, in_visits, deliveries, end) == in_one_go
