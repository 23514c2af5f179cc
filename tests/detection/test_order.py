"""The same history gives the same anomalies, in whatever order and split Stripe delivers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billingwatch.billing.rows import Row
from billingwatch.detection.detectors.card_testing import CardTesting
from billingwatch.detection.detectors.charge_failure_spike import ChargeFailureSpike
from billingwatch.detection.detectors.currency_mismatch import CurrencyMismatch
from billingwatch.detection.detectors.dispute_opened import DisputeOpened
from billingwatch.detection.detectors.duplicate_charge import DuplicateCharge
from billingwatch.detection.detectors.fraud_spike import FraudSpike
from billingwatch.detection.detectors.large_refund import LargeRefund
from billingwatch.detection.detectors.plan_downgrade import PlanDowngrade
from billingwatch.detection.detectors.refund_spike import RefundSpike
from billingwatch.detection.store import Anomaly
from billingwatch.postgres.connections import TenantConnection

from .history import DAY, History, at, blocked, charge, customer, dispute, failed, invoice, item, refund, subscription, unpaid, warning

# Low, so that small histories have many incidents that begin, grow, merge and end.
LOW = {
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
    "dispute_opened": DisputeOpened(large_factor=1),
    "duplicate_charge": DuplicateCharge(window_minutes=20),
    "fraud_spike": FraudSpike(window_days=1, min_cases=2, min_rate=0.02),
    "plan_downgrade": PlanDowngrade(min_share=0.01, warning_mrr_share=0.01, settle_days=1),
    "currency_mismatch": CurrencyMismatch(min_charges=1, min_days=0),
    "large_refund": LargeRefund(min_amount=1, median_factor=1, large_factor=0.5, baseline_days=7),
    "refund_spike": RefundSpike(window_hours=6, min_refunds=3, baseline_factor=1.2, min_strength=2, baseline_days=3),
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
            reason = random.choice(("fraudulent", "fraudulent", "duplicate"))
            yield reported, dispute(key, reported, account=account, reason=reason)
            if random.random() < 0.5:
                decided = reported + random.uniform(0, 30) * DAY
                status = random.choice(("under_review", "won", "lost", "prevented"))
                yield decided, dispute(key, reported, snapshot=2, updated=decided, account=account, reason=reason, status=status)
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


def plans(random: Random, name: str, start: float) -> Iterator[Happening]:
    """Subscriptions go up and down, sometimes at once and back, over months and years, and end."""
    for number in range(random.randint(1, 4)):
        key, minutes, mrr, status = f"{name}_{number}", start + number, random.choice((500, 1000)), random.choice(("active", "trialing"))
        account, interval = random.choice((None, None, "acct_2")), "month"
        for snapshot in range(1, random.randint(2, 9)):
            fields: dict[str, Any] = {"status": status, "mrr": mrr, "items": [item(mrr or 0, interval=interval)], "account": account}
            yield minutes, subscription(key, start + number, snapshot=snapshot, updated=minutes, **fields)
            if status == "canceled":
                break
            minutes += random.choice((0, 1, 9, 11, DAY, random.uniform(0, 3 * DAY)))
            mrr = random.choice((mrr, 300, 500, 500, 1000, 1000, 2000, None))
            status = random.choice(("active", "active", "active", "past_due", "unpaid", "canceled"))
            interval = random.choice((interval, "month", "year"))


def collections(random: Random, name: str, start: float) -> Iterator[Happening]:
    """Invoices are tried again and again, by card or by bank debit, run out, are written off, and some are paid in the end."""
    for number in range(random.randint(1, 4)):
        key, minutes, created = f"{name}_{number}", start + number, start + number
        account, snapshot = random.choice((None, None, "acct_2")), 0
        fields: dict[str, Any] = {"account": account, "total": random.choice((500, 5000)), "currency": random.choice(("usd", "jpy"))}
        for attempt in range(1, random.randint(2, 5)):
            for _ in range(random.randint(1, 3)):
                snapshot += 1
                ahead = random.choice((None, None, at(minutes), at(minutes + 4 * DAY)))
                status = random.choice(("open", "open", "open", "uncollectible"))
                tried = {"updated": minutes, "attempt_count": attempt, "next_payment_attempt_at": ahead, "status": status}
                yield minutes, unpaid(key, created, snapshot=snapshot, **{**fields, **tried}, payment_ids=[f"pi_{key}"])
                minutes += random.choice((0, 0.5, 2))
            if random.random() < 0.4:
                debit: dict[str, Any] = {"account": account, "payment_id": f"pi_{key}", "payment_method_type": "sepa_debit"}
                begun, decided = minutes - random.choice((0, 1, 3)), minutes + random.uniform(0, 6) * DAY
                yield begun, charge(f"{key}_{attempt}", begun, status="pending", **debit)
                yield (
                    decided,
                    charge(f"{key}_{attempt}", begun, status=random.choice(("failed", "succeeded")), snapshot=2, updated=decided, **debit),
                )
            minutes += random.uniform(0, 5) * DAY
        if random.random() < 0.6:
            end = random.choice(({"status": "paid", "paid_at": at(minutes)}, {"status": "void", "voided_at": at(minutes)}))
            yield minutes, invoice(key, created, snapshot=snapshot + 1, updated=minutes, **fields, **end, payment_ids=[f"pi_{key}"])


def trying_cards(random: Random, name: str, start: float) -> Iterator[Happening]:
    """Few cards are tried again and again within two hours, by guests or by one customer, some with success that is given back."""
    account, customer_id = random.choice((None, None, "acct_2")), random.choice((None, f"cus_{name}"))
    for number in range(random.randint(3, 25)):
        key, minutes = f"{name}_{number}", start + random.randint(0, 120)
        fields: dict[str, Any] = {
            "account": account,
            "customer_id": customer_id,
            "card_fingerprint": random.choice((None, "fp_1", "fp_2", "fp_3", f"fp_{key}")),
            "amount": random.choice((100, 200, 5000)),
            "currency": random.choice(("usd", "jpy")),
            "from_invoice": random.random() < 0.1,
        }
        kind = random.choice((charge, failed, failed, blocked))
        yield minutes, kind(key, minutes, **fields)
        if kind is charge and random.random() < 0.4:
            given_back = minutes + random.choice((10, 2 * DAY))
            yield given_back, charge(key, minutes, snapshot=2, updated=given_back, amount_refunded=fields["amount"], **fields)


def sales(random: Random, name: str, start: float) -> Iterator[Happening]:
    """Cards and debits of the days before, by which it is known what is usual and what is small."""
    account = random.choice((None, None, "acct_2"))
    for number in range(random.randint(20, 60)):
        key, minutes = f"{name}_{number}", start - random.uniform(0, 8) * DAY
        kind = random.choice((charge, charge, charge, failed, blocked))
        yield minutes, kind(key, minutes, account=account, amount=random.choice((150, 500, 900)), card_fingerprint=f"fp_{key}")


def refunds_given(random: Random, name: str, start: float) -> Iterator[Happening]:
    """Much is given back within hours, in parts or at once, some of it in vain; now and then something was given back before."""
    account = random.choice((None, None, "acct_2"))
    for number in range(random.randint(3, 15)):
        key = f"{name}_{number}"
        minutes = start + random.choice((-random.uniform(0, 8) * DAY, 60 * random.uniform(0, 12), 60 * random.randint(0, 12)))
        paid = charge(f"{name}_{number % 10}", minutes - 60, account=account, currency=random.choice(("usd", "usd", "jpy")))
        fields = {"amount": random.choice((100, 400, 1000, 100_000)), "reason": random.choice((None, None, "expired_uncaptured_charge"))}
        yield minutes - 60, paid
        yield minutes, refund(key, minutes, of=paid, status=random.choice(("pending", "succeeded")), **fields)
        if random.random() < 0.3:
            decided = minutes + random.uniform(0, 20) * DAY
            yield decided, refund(key, minutes, of=paid, status=random.choice(("succeeded", "failed", "canceled")), snapshot=2, **fields)


def currencies(random: Random, name: str, start: float) -> Iterator[Happening]:
    """One customer pays in one currency, then in others; Stripe may say which is theirs, and some of it is decided or given back later."""
    account = random.choice((None, None, "acct_2"))
    if random.random() < 0.5:
        for snapshot in range(1, random.randint(2, 3)):
            told = start + random.uniform(-2, 8) * DAY
            own = random.choice((None, "usd", "eur"))
            yield told, customer(name, start - 3 * DAY, snapshot=snapshot, updated=told, account=account, currency=own)
    for number in range(random.randint(2, 12)):
        key, minutes = f"{name}_{number}", start + random.choice((0, random.uniform(0, 12) * DAY))
        fields: dict[str, Any] = {
            "account": account,
            "customer_id": f"cus_{name}",
            "amount": random.choice((1000, 2000)),
            "currency": random.choice(("usd", "usd", "usd", "eur", "jpy")),
        }
        if random.random() < 0.2:
            yield minutes, charge(key, minutes, status="pending", **fields)
            decided = minutes + random.uniform(0, 12) * DAY
            yield decided, random.choice((charge, failed))(key, minutes, snapshot=2, updated=decided, **fields)
        else:
            yield minutes, random.choice((charge, charge, failed))(key, minutes, **fields)
            if random.random() < 0.2:
                given_back = minutes + random.choice((0, 60, 5 * DAY))
                yield given_back, charge(key, minutes, snapshot=2, updated=given_back, amount_refunded=fields["amount"], **fields)


EPISODES: tuple[Callable[[Random, str, float], Iterator[Happening]], ...] = (
    failures,
    failures,
    purchases,
    reports,
    credits_given,
    plans,
    collections,
    trying_cards,
    sales,
    refunds_given,
    currencies,
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


async def anomalies_after(tenant: TenantConnection, visits: list[list[Row]]) -> list[dict[str, Any]]:
    history = History(tenant)
    history.thresholds = LOW
    await tenant.execute("SAVEPOINT untouched")
    for rows in visits:
        await history.see(*rows)
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
    in_visits = await anomalies_after(tenant_connection, [*in_visits_of(random, rows, most=most), again])

    assert in_visits == in_one_go
