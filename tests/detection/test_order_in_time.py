"""The same history gives the same anomalies, in whatever order and split Stripe delivers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billingwatch.billing.rows import Row
from billingwatch.detection.detectors.charge_failure_spike import ChargeFailureSpike
from billingwatch.detection.detectors.delivery_storm import DeliveryStorm
from billingwatch.detection.detectors.duplicate_charge import DuplicateCharge
from billingwatch.detection.detectors.fraud_spike import FraudSpike
from billingwatch.detection.detectors.revenue_drop import RevenueDrop
from billingwatch.detection.detectors.webhook_lag import WebhookLag
from billingwatch.detection.detectors.webhook_silence import WebhookSilence
from billingwatch.detection.store import Anomaly
from billingwatch.postgres.connections import TenantConnection

from .history import (
    DAY,
    LATER,
    Delivery,
    History,
    at,
    blocked,
    charge,
    customer,
    delivery,
    dispute,
    failed,
    invoice,
    payment_method,
    refund,
    replayed,
    subscription,
    warning,
)

# Low, so that small histories have many incidents that begin, grow, merge and end.
LOW = {
    "charge_failure_spike": ChargeFailureSpike(
        window_minutes=60, min_attempts=5, min_failures=2, baseline_days=3, min_strength=2, baseline_factor=1.2
    ),
    "delivery_storm": DeliveryStorm(min_deliveries=3, min_events=2, min_deliveries_of_one=6, critical_events=5),
    "duplicate_charge": DuplicateCharge(window_minutes=20),
    "fraud_spike": FraudSpike(window_days=1, min_cases=2, min_rate=0.02),
    "revenue_drop": RevenueDrop(window_hours=8, baseline_weeks=3, min_drop=0.3, min_payments=5, min_strength=2),
    "webhook_lag": WebhookLag(
        window_hours=2, min_events=3, stripe_median_seconds=60, stripe_p90_seconds=600, network_median_seconds=5, network_p90_seconds=30
    ),
    "webhook_silence": WebhookSilence(min_bursts=5, min_hours=2, baseline_weeks=3),
}
LATENESS = 3 * DAY  # minutes that Stripe delivers late
# What is not a function of history: identity and bookkeeping. A row that says nothing new still takes its newest event's id and date.
BOOKKEEPING = ("anomaly_id", "detected_at", "updated_at", "resolved_at", "historical")

Happening = tuple[float, Row]  # when, in minutes, and what the event says


def failures(random: Random, name: str, start: float) -> Iterator[Happening]:
    """Payments within two hours, many of them failing, blocked, undecided for days, or tried again later."""
    account = random.choice((None, None, "acct_2"))
    for number in range(random.randint(4, 20)):
        key, minutes = f"{name}_{number}", start + 5 * random.randint(0, 24)
        fields: dict[str, Any] = {"account": account, "payment_id": f"pi_{key}", "currency": random.choice(("usd", "jpy"))}
        kind = random.choice((charge, charge, failed, failed, blocked))
        if random.random() < 0.2:
            debit = {**fields, "payment_method_type": "us_bank_account"}
            yield minutes, charge(key, minutes, status="pending", **debit)
            decided = minutes + random.uniform(0, 9) * DAY
            yield decided, kind(key, minutes, snapshot=2, updated=decided, **debit)
        else:
            yield minutes, kind(key, minutes, **fields)
        if random.random() < 0.5:
            # Often into the same or the next hour, where its first attempt may not have arrived yet.
            retried = minutes + random.choice((5, 30, 60, random.uniform(0, 2.9 * DAY)))
            yield retried, random.choice((charge, failed))(f"{key}_again", retried, **fields)


def purchases(random: Random, name: str, start: float) -> Iterator[Happening]:
    """One customer pays again and again, some of it for named orders, and gets some of it back."""
    minutes = start
    for number in range(random.randint(2, 6)):
        key = f"{name}_{number}"
        fields: dict[str, Any] = {
            "customer_id": f"cus_{name}",
            "order_reference": random.choice((None, None, "1", "2")),
            "from_invoice": random.random() < 0.2,
            "invoice_id": random.choice((None, "in_1", "in_2")),
        }
        paid = charge(key, minutes, **fields)
        yield minutes, paid
        if random.random() < 0.5:
            given_back, amount = minutes + random.choice((1, 10, 10 * DAY)), random.choice((400, 1000, 1000))
            yield given_back, refund(key, given_back, of=paid, amount=amount)
            yield given_back, charge(key, minutes, snapshot=2, updated=given_back, amount_refunded=amount, **fields)
            if random.random() < 0.2:
                yield given_back + DAY, refund(key, given_back, of=paid, amount=amount, status="failed", snapshot=2)
        minutes += random.choice((0, 5, 15, 20, 25))


def reports(random: Random, name: str, start: float) -> Iterator[Happening]:
    """Charges, and weeks later warnings, inquiries and disputes about them, the one often after the other."""
    account = random.choice((None, None, "acct_2"))
    for number in range(random.randint(2, 8)):
        key, minutes = f"{name}_{number}", start + number
        fields = {"amount": random.choice((500, 1000)), "currency": random.choice(("usd", "jpy")), "account": account}
        yield minutes, charge(key, minutes, **fields)
        reported = minutes + random.choice((60, 600, random.uniform(0, 10 * DAY)))
        if random.random() < 0.6:
            warned = reported + random.choice((-30, 0, random.uniform(0, 20 * DAY)))
            yield warned, warning(key, warned, account=account)
        if random.random() < 0.5:
            yield reported, dispute(key, reported, account=account, reason=random.choice(("fraudulent", "fraudulent", "duplicate")))
        else:
            yield reported, dispute(key, reported, account=account, kind="inquiry", status="warning_needs_response")
            if random.random() < 0.7:
                escalated = reported + random.uniform(0, 30) * DAY
                yield escalated, dispute(key, reported, snapshot=2, updated=escalated, account=account)


def credits_given(random: Random, name: str, start: float) -> Iterator[Happening]:
    """An invoice that is or was negative."""
    yield start, invoice(name, start, total=-500, status="draft", finalized_at=None)
    yield start + 60, invoice(name, start, total=random.choice((-500, 500)), status="open", snapshot=2, updated=start + 60)
    if random.random() < 0.4:
        yield start + 90, invoice(name, start, total=-500, status="void", snapshot=3, updated=start + 90)


def steady_sales(random: Random, name: str, start: float) -> Iterator[Happening]:
    """Weeks of sales in the daytime that stop for some hours near their end; some are decided or captured later."""
    account, currency = random.choice((None, "acct_2")), random.choice(("usd", "jpy"))
    days, stop = random.randint(23, 27), random.uniform(21, 24) * DAY
    stopped = random.uniform(2, 20) * 60
    for number in range(days * 12):
        minutes = start + number // 12 * DAY + number % 12 * 45 + random.randint(0, 30)
        if stop < minutes - start < stop + stopped:
            continue
        key, fields = f"{name}_{number}", {"account": account, "currency": currency, "amount": random.randint(500, 1500)}
        if random.random() < 0.05:
            yield minutes, charge(key, minutes, status="pending", **fields)
            decided = minutes + random.uniform(0, 12) * DAY
            yield decided, random.choice((charge, failed))(key, minutes, snapshot=2, updated=decided, **fields)
        else:
            yield minutes, charge(key, minutes, **fields)


def cards(random: Random, name: str, start: float) -> Iterator[Happening]:
    """A customer with a subscription or two, whose card comes near its end and is replaced, renewed or not."""
    account = random.choice((None, None, "acct_2"))

    def card(snapshot: int, minutes: float, month: int) -> Row:
        return payment_method(name, start, snapshot=snapshot, updated=minutes, account=account, card_exp_month=month, card_exp_year=2026)

    yield start, customer(name, start, account=account, default_payment_method_id=random.choice((None, f"pm_{name}")))
    yield start + 1, card(1, start + 1, random.choice((3, 4, 5)))
    for number in range(random.randint(1, 2)):
        for snapshot in range(1, random.randint(2, 4)):
            minutes = start + 2 + (snapshot - 1) * random.uniform(5, 30) * DAY
            yield (
                minutes,
                subscription(
                    f"{name}_{number}",
                    start + 2,
                    snapshot=snapshot,
                    updated=minutes,
                    account=account,
                    customer_id=f"cus_{name}",
                    status=random.choice(("active", "active", "past_due")),
                    default_payment_method_id=random.choice((None, f"pm_{name}")),
                ),
            )
    for snapshot in range(2, random.randint(2, 4)):
        minutes = start + random.uniform(1, 40) * DAY
        yield minutes, card(snapshot, minutes, random.choice((3, 4, 5, 12)))
    if random.random() < 0.5:
        minutes = start + random.uniform(1, 40) * DAY
        yield minutes, customer(name, start, snapshot=2, updated=minutes, account=account, default_payment_method_id=f"pm_{name}")


EPISODES: tuple[Callable[[Random, str, float], Iterator[Happening]], ...] = (
    failures,
    failures,
    purchases,
    reports,
    credits_given,
    cards,
    cards,
    steady_sales,
)


def heard(random: Random, days: int) -> list[Delivery]:
    """What arrives at the endpoint: slow at times, silent at times, some of it again and again, some of it replayed."""
    found: list[Delivery] = []
    minutes, slow = 0.0, ("sent", 0.0)
    while minutes < days * DAY:
        minutes += random.choice((5, 40, 60, 90))
        if random.random() < 0.02:
            minutes += random.uniform(3, 40) * 60
        if random.random() < 0.1:
            slow = random.choice((("sent", 0.0), ("sent", 900.0), ("sent", 20.0), ("travelled", 40.0)))
        key, account = f"heard_{len(found)}", random.choice((None, None, None, "acct_2"))
        event = random.choice((delivery, delivery, delivery, delivery, replayed))
        timing: dict[str, Any] = {slow[0]: slow[1]} if event is delivery else {}
        found.append(event(key, minutes, account=account, **timing))
        if random.random() < 0.03:
            found += [
                delivery(f"{key}_{i}", minutes + i + random.uniform(0, 1) * (DAY - 10), account=account)
                for i in range(random.randint(1, 4))
                for _ in range(random.randint(2, 7))
            ]
    return sorted(found, key=lambda each: each.received_at)


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


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
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
