from __future__ import annotations

from typing import Any

import pytest

from billingwatch.billing.rows import Charge
from billingwatch.detection.detectors.currency_mismatch import CurrencyMismatch

from .history import DAY, NOON, History, at, charge, customer, failed, invoice

NAME = "currency_mismatch"


def paid(key: str, minutes: float = 0, currency: str = "usd", **fields: Any) -> Charge:
    """By the same customer, unless told otherwise."""
    return charge(key, minutes, currency=currency, **{"customer_id": "cus_1", **fields})


def usual(count: int = 3, *, name: str = "usual", **fields: Any) -> list[Charge]:
    """A payment a month, the last a month ago."""
    return [paid(f"{name}_{i}", -30 * DAY * (i + 1), **fields) for i in range(count)]


async def test_a_first_payment_in_another_currency_is_an_anomaly(history: History):
    await history.see(*usual())

    await history.see(paid("a", 0, "eur", amount=4900))

    anomaly = await history.anomaly()
    assert (anomaly.detector, anomaly.subject, anomaly.severity, anomaly.status) == (NAME, "cus_1 eur", "warning", "open")
    assert anomaly.summary == "cus_1, who has always paid in USD, was charged 49.00 EUR"
    assert (anomaly.opened_at, anomaly.amounts) == (NOON, {"eur": 4900})
    assert anomaly.evidence["numbers"]["earlier_payments"] == 3
    assert anomaly.evidence["objects"]["earlier_charges"] == ["ch_usual_2", "ch_usual_1", "ch_usual_0"]


async def test_a_number_that_nobody_converted_is_critical(history: History):
    await history.see(*usual(amount=4900), paid("a", 0, "jpy", amount=4900))

    anomaly = await history.anomaly()
    assert anomaly.severity == "critical"
    assert anomaly.summary == "cus_1, who has always paid in USD, was charged 4,900 JPY, the number that they paid in USD"


async def test_a_customer_is_told_of_once_for_each_new_currency(history: History):
    await history.see(*usual(), paid("a", 0, "eur"))

    outcome = await history.see(paid("b", 60, "eur"), paid("c", 30 * DAY, "eur"), paid("d", 31 * DAY, "usd"))

    assert outcome.opened == ()
    assert (await history.anomaly()).subject == "cus_1 eur"


async def test_a_customer_with_two_legitimate_currencies_stays_quiet(history: History):
    history.thresholds = {NAME: CurrencyMismatch(min_charges=3)}
    both = [paid(f"both_{i}", -DAY * (40 - i), "eur" if i % 2 else "usd") for i in range(10)]

    await history.see(*both, paid("a", 0, "eur"), paid("b", 60, "usd"), paid("c", 120, "gbp"))

    assert await history.anomalies() == []


async def test_an_invoice_and_the_charge_that_pays_it_are_one_payment(history: History):
    await history.see(
        invoice("first", -10 * DAY, customer_id="cus_1", payment_ids=["pi_first"]), paid("first", -10 * DAY, payment_id="pi_first")
    )

    await history.see(invoice("a", 0, customer_id="cus_1", currency="eur"), paid("a", 0, "eur"))

    assert await history.anomalies() == []


async def test_of_a_customer_with_one_payment_the_currency_is_not_known(history: History):
    await history.see(*usual(1), paid("a", 0, "eur"))

    assert await history.anomalies() == []


async def test_payments_of_the_last_days_alone_tell_nothing(history: History):
    await history.see(*(paid(f"n_{i}", -60 * i) for i in range(1, 5)), paid("a", 0, "eur"))

    assert await history.anomalies() == []


async def test_what_failed_is_no_payment_in_either_currency(history: History):
    await history.see(
        *(failed(f"f_{i}", -DAY * (10 + i), customer_id="cus_1") for i in range(4)),
        paid("a", 0, "eur"),
        *usual(name="other", customer_id="cus_2"),
        failed("b", 5, customer_id="cus_2", currency="eur"),
    )

    assert await history.anomalies() == []


async def test_guests_have_no_currency(history: History):
    guest = {"customer_id": None, "payer": "fp_1", "card_fingerprint": "fp_1"}
    await history.see(*usual(**guest), paid("a", 0, "eur", **guest))

    assert await history.anomalies() == []


async def test_customers_are_not_taken_for_each_other(history: History):
    await history.see(*usual(customer_id="cus_1"), paid("a", 0, "eur", customer_id="cus_11"), paid("b", 0, "eur", customer_id="cus_"))

    assert await history.anomalies() == []


async def test_one_payment_will_do_where_stripe_says_that_it_was_the_customers_currency(history: History):
    await history.see(customer("1", -90 * DAY, currency="usd"), *usual(1), paid("a", 0, "eur"))

    anomaly = await history.anomaly()
    assert (anomaly.evidence["numbers"]["earlier_payments"], anomaly.evidence["numbers"]["currency_of_customer"]) == (1, "usd")


async def test_a_customer_who_was_moved_to_the_new_currency_is_charged_in_theirs(history: History):
    moved = customer("1", -90 * DAY, currency="eur", snapshot=2, updated=-2 * DAY)
    await history.see(customer("1", -90 * DAY, currency="usd"), *usual(), moved, paid("a", 0, "eur"))

    assert await history.anomalies() == []


async def test_a_currency_that_the_charge_itself_gave_the_customer_explains_nothing(history: History):
    await history.see(customer("1", -90 * DAY, currency=None), *usual(), paid("a", 0, "eur"))

    await history.see(customer("1", -90 * DAY, currency="eur", snapshot=2, updated=1))

    assert (await history.anomaly()).subject == "cus_1 eur"


async def test_a_refund_in_full_ends_it_and_a_part_lowers_what_is_at_risk(history: History):
    await history.see(*usual(), paid("a", 0, "eur", amount=4900))

    await history.see(paid("a", 0, "eur", amount=4900, amount_refunded=900, snapshot=2, updated=10))
    at_risk = (await history.anomaly()).amounts
    outcome = await history.see(paid("a", 0, "eur", amount=4900, amount_refunded=4900, snapshot=3, updated=20))

    anomaly = await history.anomaly()
    assert at_risk == {"eur": 4000}
    assert [finding.anomaly_id for finding in outcome.resolved] == [anomaly.anomaly_id]
    assert (anomaly.status, anomaly.resolution, anomaly.resolved_at) == ("resolved", "automatic", at(20))


async def test_an_earlier_payment_that_arrives_late_is_the_one_to_tell_of(history: History):
    await history.see(*usual(), paid("b", 60, "eur"))

    await history.see(paid("a", 0, "eur"))

    assert (await history.anomaly()).evidence["objects"]["charge"] == "ch_a"


async def test_a_payment_that_arrives_late_can_make_a_currency_the_usual_one_or_one_of_two(history: History):
    await history.see(*usual(1), paid("a", 0, "eur"), *usual(2, name="x", customer_id="cus_2"), paid("b", 0, "eur", customer_id="cus_2"))
    before = [anomaly.subject for anomaly in await history.anomalies()]

    await history.see(paid("late", -2 * DAY), paid("late_2", -2 * DAY, "gbp", customer_id="cus_2"))

    assert before == ["cus_2 eur"]
    assert [anomaly.subject for anomaly in await history.anomalies()] == ["cus_2 gbp", "cus_1 eur"]


async def test_a_bank_debit_counts_once_it_has_succeeded(history: History):
    await history.see(*usual(), paid("a", 0, "eur", status="pending"))
    as_pending = await history.anomalies()

    await history.see(paid("a", 0, "eur", snapshot=2, updated=5 * DAY))

    assert as_pending == []
    assert (await history.anomaly()).opened_at == NOON


async def test_only_the_first_payments_are_remembered_and_they_suffice(history: History, tenant_connection: Any):
    daily = [paid(f"d_{i}", -DAY * (60 - i)) for i in range(40)]
    for row in daily:
        await history.see(row)

    await history.see(paid("a", 0, "eur"))

    assert await tenant_connection.fetchval("SELECT count(*) FROM states WHERE object_id = 'cus_1 usd'") == 5
    assert (await history.anomaly()).evidence["objects"]["earlier_charges"] == [f"ch_d_{i}" for i in range(5)]


async def test_a_connected_account_is_named(history: History):
    await history.see(*usual(account="acct_2"), paid("a", 0, "eur", account="acct_2"))

    assert (await history.anomaly()).subject == "cus_1 eur acct_2"


@pytest.mark.parametrize(("count", "anomalies"), [(4, 0), (5, 1)])
async def test_a_tenant_can_tune_how_much_history_is_needed(history: History, count: int, anomalies: int):
    history.thresholds = {NAME: CurrencyMismatch(min_charges=5, min_days=30)}

    await history.see(*usual(count), paid("a", 0, "eur"))

    assert len(await history.anomalies()) == anomalies
