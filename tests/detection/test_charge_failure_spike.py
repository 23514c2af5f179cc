from __future__ import annotations

from datetime import timedelta

import pytest

from billingwatch.billing.rows import Charge
from billingwatch.detection.detectors.charge_failure_spike import ChargeFailureSpike

from .history import DAY, NOON, History, at, blocked, charge, failed

NAME = "charge_failure_spike"


def burst(name: str, *, failures: int, successes: int, minutes: float = 50, start: float = 0, **fields: object) -> list[Charge]:
    """Successes first, then failures, evenly over some minutes."""
    count = failures + successes
    step = minutes / max(count - 1, 1)
    made = [charge(f"{name}_{i}", start + i * step, **fields) for i in range(successes)]
    return made + [failed(f"{name}_{i}", start + i * step, **fields) for i in range(successes, count)]


async def test_many_declines_within_an_hour_are_a_spike(history: History):
    await history.see(*burst("a", failures=15, successes=25, amount=500))

    anomaly = await history.anomaly()
    assert (anomaly.detector, anomaly.subject, anomaly.severity) == (NAME, "declined", "warning")
    assert anomaly.summary == "15 of 40 payments were declined within 60 minutes (37.5%, usually 5.0%); 75.00 USD not collected at first"
    assert anomaly.amounts == {"usd": 7500}
    assert anomaly.evidence["numbers"]["decline_codes"] == {"do_not_honor": 15}
    assert (anomaly.evidence["numbers"]["peak_failures"], anomaly.evidence["numbers"]["peak_attempts"]) == (15, 40)
    assert len(anomaly.evidence["event_ids"]) == anomaly.evidence["events"] == 15


async def test_a_spike_is_over_once_an_hour_stays_quiet(history: History):
    outcome = await history.see(*burst("a", failures=15, successes=25), as_of=at(51))
    still = await history.settle(as_of=at(109))
    over = await history.settle(as_of=at(110))

    anomaly = await history.anomaly()
    assert outcome.settle_at == still.settle_at == at(110)
    assert still.resolved == ()
    assert [finding.anomaly_id for finding in over.resolved] == [anomaly.anomaly_id]
    assert over.settle_at is None
    assert (anomaly.status, anomaly.resolution, anomaly.resolved_at) == ("resolved", "automatic", at(110))


async def test_retries_of_one_invoice_are_one_customer_failing(history: History):
    retries = [failed(f"retry_{i}", i, payment_id="in_1", invoice_id="in_1") for i in range(8)]
    await history.see(*burst("a", failures=4, successes=36), *retries)

    assert await history.anomalies() == []


async def test_retries_neither_raise_nor_lower_the_rate(history: History):
    early = [failed(f"early_{i}", -2 * DAY, payment_id=f"pi_r{i}") for i in range(30)]
    retries = [charge(f"late_{i}", 30, payment_id=f"pi_r{i}", status="failed" if i % 2 else "succeeded") for i in range(30)]
    await history.see(*(row for row in early if row.payment_id == "pi_r0"), *early[1:3])
    await history.see(*early[3:], *burst("a", failures=15, successes=25), *retries)

    (anomaly,) = [each for each in await history.anomalies(NAME) if each.opened_at >= NOON]
    assert (anomaly.evidence["numbers"]["peak_failures"], anomaly.evidence["numbers"]["peak_attempts"]) == (15, 40)


async def test_a_late_first_attempt_takes_a_retry_out_of_its_spike(history: History):
    await history.see(*burst("a", failures=15, successes=25))
    assert len(await history.anomalies()) == 1

    first_attempts = [failed(f"first_{i}", -DAY - i * 10, payment_id=f"pi_a_{i}") for i in range(25, 40)]
    outcome = await history.see(*first_attempts)

    assert await history.anomalies() == []
    assert [finding.resolution for finding in outcome.resolved] == ["retracted"]


async def test_what_radar_blocked_is_no_decline(history: History):
    attempts = [blocked(f"b_{i}", 20 + i / 10, amount=100) for i in range(60)]
    await history.see(*burst("a", failures=2, successes=38), *attempts)

    assert await history.anomalies(NAME) == []


async def test_blocked_payments_do_not_dilute_the_declined_rate(history: History):
    await history.see(*burst("a", failures=10, successes=20), *(blocked(f"b_{i}", 10 + i / 10) for i in range(100)))

    (anomaly,) = await history.anomalies(NAME)
    assert anomaly.subject == "declined"
    assert (anomaly.evidence["numbers"]["peak_failures"], anomaly.evidence["numbers"]["peak_attempts"]) == (10, 30)


async def test_the_first_attempt_that_radar_let_through_is_the_one_that_counts(history: History):
    stopped = [blocked(f"b_{i}", 0, payment_id=f"pi_a_{i}") for i in range(40)]
    await history.see(*burst("a", failures=15, successes=25, start=1), *stopped)

    (anomaly,) = await history.anomalies(NAME)
    assert (anomaly.evidence["numbers"]["peak_failures"], anomaly.evidence["numbers"]["peak_attempts"]) == (15, 40)


async def test_blocked_payments_are_no_part_of_the_usual_rate(history: History):
    rule = [(charge if i % 4 == 0 else blocked)(f"u{day}_{i}", -day * DAY + i) for day in range(4, 17) for i in range(40)]
    await history.see(*rule, *burst("a", failures=15, successes=25))

    (anomaly,) = await history.anomalies(NAME)
    assert anomaly.evidence["numbers"]["baseline_attempts"] == 130


async def test_one_card_tried_in_many_payments_is_one_customer_failing(history: History):
    hammered = [failed(f"h_{i}", i, card_fingerprint="fp_1") for i in range(40)]
    await history.see(*burst("a", failures=2, successes=38), *hammered)

    assert await history.anomalies(NAME) == []


async def test_a_card_that_was_tested_once_is_not_the_usual_rate(history: History):
    tested = [failed(f"t_{i}", -5 * DAY + i / 10, card_fingerprint=f"fp_{i % 6}") for i in range(90)]
    await history.see(*tested, *burst("a", failures=15, successes=25))

    (anomaly,) = await history.anomalies(NAME)
    assert anomaly.evidence["numbers"]["baseline_attempts"] == 6


async def test_a_card_counts_again_after_a_window_and_on_another_account(history: History):
    history.thresholds = {NAME: ChargeFailureSpike(window_minutes=10, min_attempts=5, min_failures=5)}

    await history.see(
        *(failed(f"a_{i}", i, card_fingerprint=f"fp_{i}") for i in range(5)),
        *(failed(f"b_{i}", 30 + i, card_fingerprint=f"fp_{i}") for i in range(5)),
        *(failed(f"c_{i}", 1 + i, card_fingerprint=f"fp_{i}", account="acct_2") for i in range(5)),
    )

    found = await history.anomalies(NAME)
    assert [anomaly.subject for anomaly in found] == ["declined", "declined acct_2", "declined"]
    assert {anomaly.evidence["numbers"]["peak_attempts"] for anomaly in found} == {5}


async def test_pending_and_expired_payments_are_attempts_and_no_failures(history: History):
    pending = [charge(f"p_{i}", i, status="pending") for i in range(30)]
    expired = [charge(f"x_{i}", i, status="expired") for i in range(30)]
    await history.see(*burst("a", failures=8, successes=2), *pending, *expired)

    assert await history.anomalies() == []


async def test_a_pending_debit_that_fails_days_later_counts_when_it_was_made(history: History):
    debit = {"payment_method_type": "us_bank_account"}
    await history.see(*(charge(f"d_{i}", i, status="pending", **debit) for i in range(30)))
    returned = [failed(f"d_{i}", i, snapshot=2, updated=4 * DAY, **debit) for i in range(18, 30)]
    await history.see(*returned, *(charge(f"other_{i}", 4 * DAY + i) for i in range(30)))

    assert (await history.anomaly()).last_seen_at == at(29)


async def test_the_usual_rate_of_the_tenant_decides(history: History):
    usual = [
        (failed if i % 4 == 0 else charge)(f"u{day}_{i}", -day * DAY + i, outcome_type=None) for day in range(4, 17) for i in range(40)
    ]
    await history.see(*usual)
    before = {anomaly.anomaly_id for anomaly in await history.anomalies()}

    await history.see(*burst("a", failures=15, successes=25))

    assert {anomaly.anomaly_id for anomaly in await history.anomalies()} == before


async def test_the_baseline_ends_three_days_before_so_that_late_events_cannot_change_it(history: History):
    await history.see(*burst("a", failures=15, successes=25))
    before = await history.anomaly()

    late = [failed(f"late_{i}", -3 * DAY + 1 + i * 7) for i in range(600)]
    await history.see(*late[::7])

    assert (await history.anomalies())[-1] == before
    assert before.evidence["numbers"]["baseline_attempts"] == 0


async def test_few_payments_are_never_a_spike(history: History):
    await history.see(*burst("a", failures=19, successes=0))

    assert await history.anomalies() == []


async def test_an_accident_among_few_payments_is_no_spike(history: History):
    await history.see(*burst("a", failures=5, successes=15))

    assert await history.anomalies() == []


@pytest.mark.parametrize(("minutes", "spikes"), [(60, 1), (60 + 1 / 60, 0)])
async def test_the_window_includes_its_first_instant_and_nothing_before(history: History, minutes: float, spikes: int):
    first = [failed(f"f_{i}", 0) for i in range(10)]
    rest = [charge(f"s_{i}", 40) for i in range(9)]

    await history.see(*first, *rest, failed("last", minutes))

    assert len(await history.anomalies()) == spikes


async def test_payments_of_one_second_are_judged_together_in_any_order(history: History):
    rows = [failed(f"f_{i}", 0) for i in range(10)] + [charge(f"s_{i}", 0) for i in range(10)]
    for row in reversed(rows):
        await history.see(row)

    anomaly = await history.anomaly()
    assert (anomaly.opened_at, anomaly.last_seen_at) == (NOON, NOON)
    assert anomaly.evidence["numbers"]["peak_attempts"] == 20


async def test_an_hour_delivered_six_hours_late_lands_in_its_own_hour(history: History):
    await history.see(*(charge(f"now_{i}", 360 + i) for i in range(40)))

    await history.see(*burst("a", failures=15, successes=25))

    anomaly = await history.anomaly()
    assert anomaly.opened_at < at(60)
    assert anomaly.last_seen_at == at(50)


async def test_late_failures_are_no_spike_now_when_their_own_hours_were_normal(history: History):
    # Ten days of declines, one each hour, delivered at once.
    rows = [(failed if i % 20 == 0 else charge)(f"h_{i}", i * 3) for i in range(1000)]

    await history.see(*rows)

    assert await history.anomalies() == []


async def test_two_bursts_an_hour_apart_are_one_spike_and_further_apart_two(history: History):
    rows = [*burst("a", failures=20, successes=10), *burst("b", failures=20, successes=10, start=70)]
    await history.see(*rows)
    assert len(await history.anomalies()) == 1

    await history.see(*burst("c", failures=20, successes=10, start=400))

    assert len(await history.anomalies()) == 2


async def test_currencies_are_never_added_up(history: History):
    await history.see(
        *burst("a", failures=10, successes=15, amount=500, currency="jpy"),
        *burst("b", failures=10, successes=15, amount=5000, currency="kwd"),
    )

    anomaly = await history.anomaly()
    assert anomaly.amounts == {"jpy": 5000, "kwd": 50000}
    assert anomaly.summary.endswith("5,000 JPY and 50.000 KWD not collected at first")


async def test_connected_accounts_have_rates_of_their_own(history: History):
    await history.see(*burst("a", failures=15, successes=15, account="acct_2"), *burst("b", failures=1, successes=200))

    assert (await history.anomaly()).subject == "declined acct_2"


async def test_evidence_lists_at_most_fifty_events_and_counts_all(history: History):
    await history.see(*burst("a", failures=80, successes=20))

    anomaly = await history.anomaly()
    assert (len(anomaly.evidence["event_ids"]), anomaly.evidence["events"]) == (50, 80)
    assert anomaly.severity == "critical"


async def test_a_tenant_can_tune_the_window_and_the_counts(history: History):
    history.thresholds = {NAME: ChargeFailureSpike(window_minutes=10, min_attempts=5, min_failures=3)}

    await history.see(*burst("a", failures=5, successes=3, minutes=8))

    anomaly = await history.anomaly()
    assert anomaly.last_seen_at - anomaly.opened_at < timedelta(minutes=10)
