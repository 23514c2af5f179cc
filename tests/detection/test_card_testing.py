from __future__ import annotations

import pytest

from billingwatch.billing.rows import Charge
from billingwatch.detection.detectors.card_testing import CardTesting

from .history import DAY, NOON, History, at, blocked, charge, failed

NAME = "card_testing"


def tried(name: str, count: int, *, cards: int = 1, start: float = 0, minutes: float = 10, **fields: object) -> list[Charge]:
    """Guests are refused over one dollar each, card after card."""
    return [
        failed(
            f"{name}_{i}",
            start + i * minutes / max(count - 1, 1),
            **{"customer_id": None, "card_fingerprint": f"fp_{name}_{i % cards}", "amount": 100, **fields},
        )
        for i in range(count)
    ]


def usual(*, days: int = 14, each: int = 10, **fields: object) -> list[Charge]:
    """Purchases of 5.00 to 50.00 a day, of strangers, on the days that are taken for the usual."""
    return [
        charge(f"usual_{day}_{i}", -day * DAY + 20 * i, **{"amount": 500 + 500 * i, **fields})
        for day in range(4, 4 + days)
        for i in range(each)
    ]


async def test_a_burst_that_radar_blocks_is_one_campaign(history: History):
    attempts = [blocked(f"b_{i}", i / 4, amount=100, card_fingerprint=f"fp_{i % 6}", customer_id=None) for i in range(60)]
    declined = [failed(f"d_{i}", 3 + i, card_fingerprint=f"fp_{i}", amount=150) for i in range(4)]
    await history.see(*attempts, *declined, charge("sold", 10, card_fingerprint="fp_3", amount=199), charge("other", 11, amount=9900))

    anomaly = await history.anomaly()
    assert (anomaly.detector, anomaly.subject, anomaly.severity) == (NAME, "cards", "critical")
    assert anomaly.summary == "65 attempts on 6 cards within 15 minutes: 60 blocked by Radar, 4 declined, 1 succeeded; 1.99 USD at risk"
    assert anomaly.amounts == {"usd": 199}
    numbers = anomaly.evidence["numbers"]
    assert (numbers["blocked"], numbers["declined"], numbers["succeeded"], numbers["cards"]) == (60, 4, 1, 6)
    assert anomaly.evidence["objects"]["succeeded"] == ["ch_sold"]
    assert (anomaly.evidence["events"], len(anomaly.evidence["event_ids"])) == (65, 50)


async def test_five_hundred_failures_on_one_card_within_a_minute_are_one_campaign(history: History):
    await history.see(*tried("a", 500, minutes=1))

    anomaly = await history.anomaly()
    assert (anomaly.detector, anomaly.severity) == (NAME, "critical")
    assert (anomaly.evidence["numbers"]["declined"], anomaly.evidence["numbers"]["cards"]) == (500, 1)
    assert anomaly.summary == "500 attempts on one card within a minute: 0 blocked by Radar, 500 declined, 0 succeeded"


async def test_card_after_card_of_one_customer_is_testing(history: History):
    await history.see(*tried("a", 6, cards=6, customer_id="cus_1", amount=4900))

    anomaly = await history.anomaly()
    assert (anomaly.subject, anomaly.severity) == ("cards", "warning")
    assert anomaly.evidence["numbers"]["traces"] == {"blocked": 0, "card": 0, "customer": 2, "small_amounts": 0}


async def test_many_cards_refused_over_amounts_that_are_small_here_are_testing(history: History):
    await history.see(*usual())

    await history.see(*tried("a", 20, cards=20))

    (anomaly,) = await history.anomalies(NAME)
    assert anomaly.evidence["numbers"]["traces"] == {"blocked": 0, "card": 0, "customer": 0, "small_amounts": 6}
    assert (anomaly.evidence["numbers"]["declined"], anomaly.evidence["numbers"]["cards"]) == (20, 20)


async def test_small_is_told_for_each_currency(history: History):
    await history.see(
        *usual(),
        *(row for day in range(4, 18) for row in [charge(f"yen_{day}_{i}", -day * DAY + i, amount=90, currency="jpy") for i in range(5)]),
    )

    await history.see(*tried("yen", 20, cards=20, amount=100, currency="jpy"), *tried("unknown", 20, cards=20, currency="chf"))

    assert await history.anomalies(NAME) == []


async def test_an_outage_that_refuses_many_strangers_over_usual_amounts_is_no_testing(history: History):
    await history.see(*usual())

    await history.see(*(failed(f"o_{i}", i / 2, amount=500 + 100 * (i % 40), card_fingerprint=f"fp_{i}") for i in range(80)))

    assert {anomaly.detector for anomaly in await history.anomalies()} == {"charge_failure_spike"}


@pytest.mark.parametrize("attempts", [3, 8])
async def test_a_customer_who_tries_the_same_card_again_is_no_testing(history: History, attempts: int):
    await history.see(
        *tried("a", attempts, customer_id="cus_1"), *tried("b", attempts, customer_id="cus_2", payment_id="pi_b"), charge("then", 12)
    )

    assert await history.anomalies() == []


async def test_a_customer_who_tries_their_other_cards_is_no_testing(history: History):
    await history.see(*tried("a", 9, cards=3, customer_id="cus_1"))

    assert await history.anomalies() == []


async def test_a_dunning_run_of_many_invoices_on_renewal_day_is_no_testing(history: History):
    renewals = [charge(f"r_{i}", i / 10, from_invoice=True, card_fingerprint=f"fp_r{i}") for i in range(200)]
    run = [failed(f"f_{i}", i / 10, from_invoice=True, card_fingerprint=f"fp_f{i}", amount=100) for i in range(30)]
    many = [failed(f"m_{i}", i / 10, from_invoice=True, customer_id="cus_1", card_fingerprint=f"fp_m{i % 6}") for i in range(30)]
    await history.see(*usual(), *renewals, *run, *many)

    assert await history.anomalies(NAME) == []


async def test_a_rule_of_radar_that_blocks_a_few_payments_a_day_is_usual(history: History):
    rule = [blocked(f"rule_{day}_{i}", -day * DAY + 100 * i) for day in range(18) for i in range(5)]
    await history.see(*usual(), *rule)

    assert await history.anomalies() == []


async def test_a_rule_of_radar_that_blocks_a_third_of_all_payments_is_usual_too(history: History):
    rule = [blocked(f"rule_{day}_{i}", -day * DAY + 10 * i) for day in range(4, 18) for i in range(40)]
    await history.see(*rule, *usual(each=80))
    before = {anomaly.anomaly_id for anomaly in await history.anomalies()}

    await history.see(*(blocked(f"b_{i}", i) for i in range(20)), *(charge(f"c_{i}", i / 2) for i in range(40)))

    assert {anomaly.anomaly_id for anomaly in await history.anomalies()} == before


async def test_blocked_attempts_that_are_a_small_share_are_no_campaign(history: History):
    await history.see(*(blocked(f"b_{i}", i) for i in range(20)), *(charge(f"c_{i}", i / 10) for i in range(200)))

    assert await history.anomalies() == []


async def test_many_payments_on_one_card_that_succeed_are_no_testing(history: History):
    await history.see(*(charge(f"a_{i}", i / 10, customer_id="cus_1", card_fingerprint="fp_1", order_reference=str(i)) for i in range(100)))

    assert await history.anomalies() == []


async def test_a_campaign_that_pauses_for_an_hour_goes_on_and_one_after_a_night_is_another(history: History):
    await history.see(*tried("a", 15, start=0), *tried("b", 15, start=90))
    assert len(await history.anomalies()) == 1

    await history.see(*tried("c", 15, start=12 * 60))

    assert len(await history.anomalies()) == 2


async def test_a_campaign_is_over_once_it_stays_quiet(history: History):
    outcome = await history.see(*tried("a", 15), as_of=at(11))
    over = await history.settle(as_of=at(10 + 120))

    assert outcome.settle_at == at(10 + 120)
    assert [finding.resolution for finding in over.resolved] == ["automatic"]
    assert (await history.anomaly()).resolved_at == at(130)


async def test_what_was_given_back_is_no_longer_at_risk(history: History):
    await history.see(
        *tried("a", 15),
        charge("sold", 5, card_fingerprint="fp_a_0", amount=300),
        charge("too", 6, card_fingerprint="fp_a_0", amount=80, currency="jpy"),
    )
    at_first = (await history.anomaly()).amounts

    await history.see(charge("sold", 5, card_fingerprint="fp_a_0", amount=300, amount_refunded=300, snapshot=2, updated=60))

    assert at_first == {"usd": 300, "jpy": 80}
    assert (await history.anomaly()).amounts == {"jpy": 80}
    assert (await history.anomaly()).evidence["numbers"]["succeeded"] == 2


async def test_connected_accounts_are_judged_apart(history: History):
    await history.see(*tried("a", 8), *tried("a2", 8, account="acct_2", card_fingerprint="fp_a_0"), *tried("b", 12, account="acct_2"))

    assert (await history.anomaly()).subject == "cards acct_2"


async def test_attempts_without_a_card_are_only_judged_by_what_radar_blocks(history: History):
    await history.see(*tried("a", 30, card_fingerprint=None, payment_method_type=None))

    assert await history.anomalies(NAME) == []


async def test_card_testing_is_no_failure_spike(history: History):
    testing = [(blocked if i % 4 else failed)(f"t_{i}", i / 10, card_fingerprint=f"fp_{i % 6}", amount=100) for i in range(240)]
    await history.see(*testing, *(charge(f"c_{i}", i) for i in range(30)))

    assert (await history.anomaly()).detector == NAME


async def test_a_tenant_can_tune_the_counts_and_the_window(history: History):
    history.thresholds = {NAME: CardTesting(window_minutes=5, min_card_attempts=4, critical_attempts=4)}

    await history.see(*tried("a", 4, minutes=4), *tried("b", 4, start=300, minutes=20))

    anomaly = await history.anomaly()
    assert (anomaly.opened_at, anomaly.severity) == (at(4), "critical")
    assert anomaly.evidence["window"]["since"] == NOON.isoformat()
