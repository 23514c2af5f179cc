"""The same history gives the same anomalies, in whatever order and split Stripe delivers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billingwatch.billing.rows import Row
from billingwatch.detection.detectors.charge_failure_spike import ChargeFailureSpike
from billingwatch.detection.detectors.duplicate_charge import DuplicateCharge
from billingwatch.detection.detectors.fraud_spike import FraudSpike
from billingwatch.detection.detectors.silent_lapse import SilentLapse
from billingwatch.detection.store import Anomaly
from billingwatch.postgres.connections import TenantConnection

from .history import DAY, LATER, History, at, blocked, charge, dispute, failed, invoice, refund, warning
from .renewals import item, line, subscription

# Low, so that small histories have many incidents that begin, grow, merge and end.
LOW = {
    "charge_failure_spike": ChargeFailureSpike(
        window_minutes=60, min_attempts=5, min_failures=2, baseline_days=3, min_strength=2, baseline_factor=1.2
    ),
    "duplicate_charge": DuplicateCharge(window_minutes=20),
    "fraud_spike": FraudSpike(window_days=1, min_cases=2, min_rate=0.02),
    "silent_lapse": SilentLapse(grace_hours=6),
}
LATENESS = 3 * DAY  # minutes that Stripe delivers late
END = 58 * DAY  # minutes after which time is judged for the last time
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


def renewals(random: Random, name: str, start: float) -> Iterator[Happening]:
    """A subscription that is renewed, or not; twice, or too early; that changes its price, its anchor, or ends."""
    account, interval = random.choice((None, None, "acct_2")), random.choice(("day", "day", "week", "month"))
    length, amount = {"day": 1, "week": 7, "month": 31}[interval] * DAY, random.choice((500, 1000))
    told: dict[str, Any] = {"made": start, "account": account, "currency": random.choice(("usd", "jpy"))}
    anchor, begins, reason = start, start, "subscription_create"
    for number in range(random.randint(1, 6)):
        sold, state = item(begins, begins + length, amount, interval=interval), {"billing_cycle_anchor_at": at(anchor)}
        if random.random() < 0.8:
            later = begins + random.choice((0, 0, 0.5, 300))
            status = random.choice(("active", "active", "active", "past_due", "trialing"))
            yield later, subscription(name, later, sold, status=status, **told, **state)
        for copy in range(random.choice((0, 1, 1, 1, 2, 3))):
            key, made = f"{name}_{number}_{copy}", begins + copy * random.choice((0, 60, 900))
            billed: dict[str, Any] = {
                "subscription_id": f"sub_{name}",
                "account": account,
                "currency": told["currency"],
                "total": random.choice((amount, amount, 700)),
                "billing_reason": random.choice((reason, reason, reason, "subscription_update")),
                "period_start_at": at(begins - length),
                "period_end_at": at(begins),
                "discount_amount": random.choice((None, 0, 100)),
                "tax_amount": 0,
            }
            lines = [line(begins, begins + length, billed["total"])]
            billed["lines"] = random.choice((lines, lines, None))
            final = made + random.choice((60, 60, 60, 2 * DAY))
            yield made, invoice(key, made, **{**billed, "status": "draft", "finalized_at": None})
            yield final, invoice(key, made, snapshot=2, updated=final, **{**billed, "status": "open", "finalized_at": at(final)})
            over = final + random.choice((1, 600, 2 * DAY))
            ended = random.choice(("open", "paid", "void"))
            yield (
                over,
                invoice(
                    key,
                    made,
                    snapshot=3,
                    updated=over,
                    **{**billed, "status": ended, "finalized_at": at(final), "voided_at": at(over) if ended == "void" else None},
                ),
            )
        if random.random() < 0.3:
            changed, amount = begins + random.choice((-1, 1, 400)), random.choice((500, 1000))
            yield changed, subscription(name, changed, {**sold, "amount": amount}, **told, **state)
        begins, reason = begins + random.choice((length, length, length, length / 3)), "subscription_cycle"
        if random.random() < 0.1:
            anchor = begins
    if random.random() < 0.4:
        ended_at = begins + random.choice((-600, 0, 600, 2 * DAY))
        yield ended_at, subscription(name, ended_at, sold, status=random.choice(("canceled", "unpaid")), **told)


EPISODES: tuple[Callable[[Random, str, float], Iterator[Happening]], ...] = (
    failures,
    failures,
    purchases,
    reports,
    credits_given,
    renewals,
    renewals,
)


def delivered(random: Random, *, days: int, episodes: int) -> list[Row]:
    """What happened in some days, in the order in which it arrives: each event up to three days late."""
    arrivals: list[tuple[float, Row]] = []
    for number in range(episodes):
        # Some begin together, so that incidents meet.
        start = 5 * round(random.choice((0, 60, random.uniform(0, days * DAY))) / 5)
        for happened, row in random.choice(EPISODES)(random, f"e{number}", start):
            arrivals.append((happened + random.choice((0, 0, random.uniform(0, LATENESS))), row))
    return [row for _, row in sorted(arrivals, key=lambda arrival: arrival[0])]


def in_visits_of(random: Random, rows: list[Row], *, most: int) -> list[list[Row]]:
    visits: list[list[Row]] = []
    while rows:
        size = random.randint(1, most)
        visits.append(rows[:size])
        rows = rows[size:]
    return visits


def by_history(anomaly: Anomaly) -> dict[str, Any]:
    said = msgspec.structs.asdict(anomaly)
    evidence = {name: value for name, value in said.pop("evidence").items() if name != "event_ids"}
    return {**{name: value for name, value in said.items() if name not in BOOKKEEPING}, "evidence": evidence}


async def anomalies_after(tenant: TenantConnection, visits: list[list[Row]], ticks: Random | None = None) -> list[dict[str, Any]]:
    """Time is judged at the end, and with `ticks` also between visits, however far the events have come by then."""
    history = History(tenant)
    history.thresholds = LOW
    await tenant.execute("SAVEPOINT untouched")
    judged = 0.0
    for rows in visits:
        await history.see(*rows)
        if ticks is not None and ticks.random() < 0.5:
            judged = min(judged + ticks.uniform(0, 4) * DAY, END)
            await history.tick(at(judged), as_of=LATER)
    await history.tick(at(END), as_of=LATER)
    found = [by_history(anomaly) for anomaly in await history.anomalies()]
    await tenant.execute("ROLLBACK TO SAVEPOINT untouched")
    return sorted(found, key=lambda said: (said["detector"], said["fingerprint"]))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), days=st.sampled_from([1, 3, 25]), episodes=st.integers(1, 6), most=st.integers(1, 20))
async def test_any_order_and_split_that_stripe_may_deliver_gives_the_same_anomalies(
    tenant_connection: TenantConnection, seed: int, days: int, episodes: int, most: int
):
    random = Random(seed)
    rows = delivered(random, days=days, episodes=episodes)
    again = random.sample(rows, len(rows) // 4)

    in_one_go = await anomalies_after(tenant_connection, [rows])
    in_visits = await anomalies_after(tenant_connection, [*in_visits_of(random, rows, most=most), again], random)

    assert in_visits == in_one_go
