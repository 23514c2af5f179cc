from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billingwatch.billing.rows import Row
from billingwatch.detection.detectors.card_expiry import CardExpiry

from .history import DAY, NOON, History, at, customer, payment_method, subscription

MARCH = {"card_exp_month": 3, "card_exp_year": 2026}  # NOON is 2 March 2026
EXPIRY = datetime(2026, 4, 1, tzinfo=UTC)


def midnight(day: int) -> datetime:
    return datetime(2026, 3, day, tzinfo=UTC)


def paying(
    key: str = "a", minutes: float = -DAY, *, card: dict[str, Any] | None = None, account: str | None = None, **fields: Any
) -> list[Row]:
    """A monthly subscription whose next renewal comes after the end of March, and its card."""
    return [
        customer(key, -90 * DAY, account=account, default_payment_method_id=f"pm_{key}"),
        payment_method(key, -90 * DAY, account=account, **(MARCH if card is None else card)),
        subscription(key, minutes, account=account, **{"period_end_at": EXPIRY + timedelta(days=1), **fields}),
    ]


async def test_a_card_that_expires_before_the_next_renewal_is_told_once(history: History):
    await history.see(*paying())
    for day in range(3, 10):
        await history.tick(midnight(day))

    anomaly = await history.anomaly()
    assert (anomaly.detector, anomaly.subject, anomaly.severity, anomaly.status) == ("card_expiry", "pm_a 2026-03", "info", "open")
    assert (anomaly.opened_at, anomaly.last_seen_at, anomaly.amounts) == (midnight(2), midnight(9), {"usd": 1000})
    assert anomaly.summary == "The visa 4242 of cus_a expires at the end of 2026-03, before a subscription of 10.00 USD a month renews"
    assert anomaly.evidence["objects"] == {"payment_method": "pm_a", "customer": "cus_a", "subscriptions": ["sub_a"]}
    assert anomaly.evidence["numbers"]["days_left"] == 23


@pytest.mark.parametrize(
    ("day", "severity"), [(2, "info"), (16, "info"), (17, "warning"), (24, "warning"), (25, "critical"), (31, "critical")]
)
async def test_it_becomes_more_severe_as_the_day_comes_near(history: History, day: int, severity: str):
    await history.see(*paying())
    await history.tick(midnight(day))

    assert (await history.anomaly()).severity == severity


async def test_a_renewal_that_comes_before_is_still_paid(history: History):
    await history.see(*paying(period_end_at=at(10 * DAY)))
    await history.tick(midnight(12))
    before = await history.anomalies()
    await history.see(subscription("a", -DAY, snapshot=2, updated=10 * DAY, period_end_at=at(40 * DAY)))
    await history.tick(midnight(15))

    assert before == []
    assert (await history.anomaly()).opened_at == midnight(13)


async def test_a_subscriptions_own_default_goes_before_the_customers(history: History):
    await history.see(
        *paying("a"),
        payment_method("b", -90 * DAY, customer_id="cus_a"),
        subscription("a", -DAY, snapshot=2, default_payment_method_id="pm_b", period_end_at=EXPIRY),
    )
    await history.tick(midnight(20))
    own_is_good = await history.anomalies()
    await history.see(subscription("c", -DAY, customer_id="cus_a", default_payment_method_id="pm_a", period_end_at=EXPIRY, mrr=500))
    await history.tick(midnight(21))

    assert own_is_good == []
    assert (await history.anomaly()).evidence["objects"]["subscriptions"] == ["sub_c"]


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "trialing"},
        {"status": "past_due"},
        {"status": "canceled"},
        {"collection_paused": True},
        {"collection_method": "send_invoice"},
        {"cancel_at_period_end": True},
        {"cancel_at": at(20 * DAY)},
        {"mrr": 0},
        {"mrr": None},
        {"period_end_at": None},
    ],
    ids=str,
)
async def test_a_subscription_that_charges_no_card_next_is_not_told(history: History, fields: dict[str, Any]):
    await history.see(*paying(**fields))
    await history.tick(midnight(25))

    assert await history.anomalies() == []


@pytest.mark.parametrize(
    "card",
    [
        {"card_exp_month": 4, "card_exp_year": 2026},
        {"card_exp_month": 2, "card_exp_year": 2026},
        {"card_exp_month": None, "card_exp_year": None},
        {"card_exp_month": 13, "card_exp_year": 2025},
        {"card_exp_month": 3, "card_exp_year": 2026, "customer_id": None},
    ],
    ids=str,
)
async def test_a_card_that_is_good_or_past_or_unknown_is_not_told(history: History, card: dict[str, Any]):
    await history.see(*paying(card=card))
    await history.tick(midnight(25))

    assert await history.anomalies() == []


async def test_without_a_known_default_there_is_nothing_to_say(history: History):
    _, card, sold = paying()
    await history.see(card, sold)
    await history.tick(midnight(25))

    assert await history.anomalies() == []


@pytest.mark.parametrize(
    "ending",
    [
        payment_method("a", -90 * DAY, snapshot=2, updated=8 * DAY),
        payment_method("a", -90 * DAY, snapshot=2, updated=8 * DAY, customer_id=None, **MARCH),
        customer("a", -90 * DAY, snapshot=2, updated=8 * DAY, default_payment_method_id="pm_new"),
        subscription("a", -DAY, snapshot=2, updated=8 * DAY, status="canceled"),
    ],
    ids=["renewed by its issuer", "detached", "replaced", "canceled"],
)
async def test_it_ends_when_its_cause_is_gone(history: History, ending: Row):
    await history.see(*paying())
    await history.tick(midnight(9))
    await history.see(ending)
    await history.tick(midnight(11))
    await history.settle(as_of=midnight(11) + timedelta(hours=1))

    anomaly = await history.anomaly()
    assert (anomaly.status, anomaly.resolution, anomaly.last_seen_at) == ("resolved", "automatic", midnight(10))


async def test_it_ends_when_the_card_has_expired(history: History):
    await history.see(*paying())
    await history.tick(EXPIRY + timedelta(days=3))
    await history.settle(as_of=EXPIRY + timedelta(days=3))

    anomaly = await history.anomaly()
    assert (anomaly.status, anomaly.severity, anomaly.last_seen_at) == ("resolved", "critical", midnight(31))


async def test_what_was_true_then_decides_even_if_it_is_told_late(history: History):
    """The card was renewed on the 5th, which arrives on the 8th."""
    await history.see(*paying())
    await history.tick(midnight(8))
    await history.see(payment_method("a", -90 * DAY, snapshot=2, updated=3 * DAY))

    assert (await history.anomaly()).last_seen_at == midnight(5)


async def test_a_state_of_later_says_nothing_about_before(history: History):
    await history.see(*paying(), payment_method("a", -90 * DAY, snapshot=2, updated=8 * DAY))
    await history.tick(midnight(20))

    assert (await history.anomaly()).last_seen_at == midnight(10)


async def test_the_next_expiry_of_the_same_method_is_another_anomaly(history: History):
    await history.see(*paying())
    await history.tick(midnight(9))
    await history.see(
        payment_method("a", -90 * DAY, snapshot=2, updated=7 * DAY, card_exp_month=4, card_exp_year=2026),
        subscription("a", -DAY, snapshot=2, updated=30 * DAY, period_end_at=at(65 * DAY)),
    )
    await history.tick(EXPIRY + timedelta(days=20))

    assert [anomaly.subject for anomaly in await history.anomalies()] == ["pm_a 2026-03", "pm_a 2026-04"]


async def test_all_that_one_card_pays_is_at_risk_per_currency(history: History):
    await history.see(
        *paying(),
        subscription("b", -DAY, customer_id="cus_a", mrr=500, period_end_at=EXPIRY),
        subscription("c", -DAY, customer_id="cus_a", mrr=700, currency="jpy", period_end_at=EXPIRY),
    )
    await history.tick(midnight(10))

    anomaly = await history.anomaly()
    assert anomaly.amounts == {"usd": 1500, "jpy": 700}
    assert "before 3 subscriptions of 700 JPY and 15.00 USD a month renews" in anomaly.summary


async def test_connected_accounts_are_told_apart(history: History):
    await history.see(*paying(account="acct_2"))
    await history.tick(midnight(10))

    assert (await history.anomaly()).subject == "pm_a 2026-03 acct_2"


async def test_thresholds_count(history: History):
    history.thresholds = {"card_expiry": CardExpiry(notice_days=10, warning_days=9, critical_days=9)}
    await history.see(*paying())
    await history.tick(midnight(23))

    anomaly = await history.anomaly()
    assert (anomaly.opened_at, anomaly.severity) == (midnight(22), "critical")
    assert anomaly.opened_at > NOON
