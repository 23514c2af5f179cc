from __future__ import annotations

import msgspec
import pytest

from billingwatch.detection.detectors.duplicate_charge import DuplicateCharge

from .history import DAY, History, at, charge, invoice, item, refund, subscription


async def test_the_same_amount_twice_within_minutes_is_a_duplicate(history: History):
    await history.see(charge("a", 0, customer_id="cus_1", amount=1999), charge("b", 4, customer_id="cus_1", amount=1999))

    anomaly = await history.anomaly()
    assert (anomaly.detector, anomaly.subject, anomaly.severity, anomaly.status) == (
        "duplicate_charge",
        "cus_1 1999 usd",
        "warning",
        "open",
    )
    assert anomaly.amounts == {"usd": 1999}
    assert (anomaly.opened_at, anomaly.last_seen_at) == (at(4), at(4))
    assert anomaly.summary == "cus_1 was charged 19.99 USD 2 times within 4 minutes; 19.99 USD too much"
    assert anomaly.evidence["objects"]["charges"] == ["ch_a", "ch_b"]
    assert anomaly.evidence["event_ids"] == ["evt_a_1", "evt_b_1"]


async def test_a_charge_and_the_paid_invoice_of_one_payment_are_never_a_duplicate(history: History):
    paid = charge("a", 0, customer_id="cus_1", amount=2000)

    await history.see(paid, invoice("a", -60, customer_id="cus_1", total=2000, payment_ids=["pi_a"]))
    await history.see(invoice("a", -60, customer_id="cus_1", total=2000, payment_ids=["pi_a"], snapshot=2))

    assert await history.anomalies() == []


async def test_the_same_charge_told_by_two_events_is_one_charge(history: History):
    await history.see(charge("a", 0))
    await history.see(charge("a", 0, snapshot=2, updated=1, risk_level="normal"))

    assert await history.anomalies() == []


@pytest.mark.parametrize(
    "second",
    [
        pytest.param({"currency": "eur"}, id="currency"),
        pytest.param({"amount": 1001}, id="amount"),
        pytest.param({"customer_id": "cus_2"}, id="payer"),
        pytest.param({"account": "acct_2"}, id="connected account"),
        pytest.param({"payment_id": "pi_a"}, id="one payment"),
        pytest.param({"status": "failed"}, id="failed"),
        pytest.param({"captured": False}, id="not captured"),
        pytest.param({"status": "pending"}, id="pending"),
    ],
)
async def test_what_differs_or_was_not_taken_is_no_duplicate(history: History, second: dict[str, object]):
    await history.see(charge("a", 0, customer_id="cus_1"), charge("b", 4, **{"customer_id": "cus_1", **second}))

    assert await history.anomalies() == []


async def test_charges_without_a_known_payer_are_not_compared(history: History):
    await history.see(charge("a", 0, customer_id=None), charge("b", 1, customer_id=None))

    assert await history.anomalies() == []


async def test_a_guest_is_known_by_the_card(history: History):
    await history.see(charge("a", 0, customer_id=None, payer="card_print"), charge("b", 1, customer_id=None, payer="card_print"))

    assert (await history.anomaly()).subject == "card_print 1000 usd"


async def test_the_window_includes_its_last_instant_and_nothing_after(history: History):
    await history.see(charge("a", 0, customer_id="cus_1"), charge("b", 10, customer_id="cus_1"))
    await history.see(charge("c", 0, customer_id="cus_2"), charge("d", 10 + 1 / 60, customer_id="cus_2"))

    assert (await history.anomaly()).subject == "cus_1 1000 usd"


async def test_two_different_orders_are_no_duplicate(history: History):
    await history.see(
        charge("a", 0, customer_id="cus_1", order_reference="1001"), charge("b", 4, customer_id="cus_1", order_reference="1002")
    )

    assert await history.anomalies() == []


async def test_one_order_paid_twice_is_critical(history: History):
    await history.see(
        charge("a", 0, customer_id="cus_1", order_reference="1001"), charge("b", 4, customer_id="cus_1", order_reference="1001")
    )

    assert (await history.anomaly()).severity == "critical"


async def test_orders_are_compared_across_other_orders_in_between(history: History):
    await history.see(
        charge("a", 0, customer_id="cus_1", order_reference="1001"),
        charge("b", 1, customer_id="cus_1", order_reference="1002"),
        charge("c", 2, customer_id="cus_1", order_reference="1001"),
    )

    anomaly = await history.anomaly()
    assert anomaly.evidence["objects"]["charges"] == ["ch_a", "ch_c"]
    assert anomaly.amounts == {"usd": 1000}


async def test_a_payment_for_each_named_order_is_owed(history: History):
    await history.see(
        charge("a", 0, customer_id="cus_1"),
        charge("b", 1, customer_id="cus_1", order_reference="1001"),
        charge("c", 2, customer_id="cus_1", order_reference="1002"),
    )

    assert (await history.anomaly()).amounts == {"usd": 1000}


async def test_renewal_and_upgrade_of_the_same_amount_are_two_invoices(history: History):
    await history.see(
        charge("a", 0, customer_id="cus_1", from_invoice=True, invoice_id="in_1"),
        charge("b", 1, customer_id="cus_1", from_invoice=True, invoice_id="in_2"),
        charge("c", 2, customer_id="cus_1", from_invoice=True),
    )

    assert await history.anomalies() == []


async def test_one_invoice_paid_twice_is_a_duplicate(history: History):
    await history.see(
        charge("a", 0, customer_id="cus_1", from_invoice=True, invoice_id="in_1"),
        charge("b", 1, customer_id="cus_1", from_invoice=True, invoice_id="in_1"),
    )

    assert (await history.anomaly()).amounts == {"usd": 1000}


async def test_three_charges_are_one_critical_anomaly(history: History):
    await history.see(*(charge(key, minute, customer_id="cus_1") for key, minute in (("a", 0), ("b", 9), ("c", 18))))

    anomaly = await history.anomaly()
    assert anomaly.severity == "critical"
    assert anomaly.amounts == {"usd": 2000}
    assert (anomaly.opened_at, anomaly.last_seen_at) == (at(9), at(18))


async def test_charges_of_the_same_second_are_seen_in_either_order(history: History):
    await history.see(charge("b", 0, customer_id="cus_1"))
    await history.see(charge("a", 0, customer_id="cus_1"))

    assert (await history.anomaly()).evidence["objects"]["charges"] == ["ch_a", "ch_b"]


async def test_a_refund_of_either_charge_ends_it_at_the_refund(history: History):
    for customer, refunded in (("cus_1", "a"), ("cus_2", "d")):
        await history.see(charge("a" if customer == "cus_1" else "c", 0, customer_id=customer))
        await history.see(charge("b" if customer == "cus_1" else "d", 4, customer_id=customer))
        minute = {"a": 0, "d": 4}[refunded]
        outcome = await history.see(charge(refunded, minute, customer_id=customer, amount_refunded=1000, snapshot=2, updated=90))
        assert [finding.status for finding in outcome.resolved] == ["resolved"]

    for anomaly in await history.anomalies():
        assert (anomaly.status, anomaly.resolution, anomaly.resolved_at) == ("resolved", "automatic", at(90))
        assert anomaly.amounts == {"usd": 0}


async def test_partial_refunds_count_cumulatively_and_lessen_the_risk(history: History):
    await history.see(charge("a", 0, customer_id="cus_1"), charge("b", 4, customer_id="cus_1"))
    await history.see(charge("b", 4, customer_id="cus_1", amount_refunded=300, snapshot=2, updated=10))
    outcome = await history.see(charge("b", 4, customer_id="cus_1", amount_refunded=700, snapshot=3, updated=20))

    anomaly = await history.anomaly()
    assert (anomaly.status, anomaly.amounts) == ("open", {"usd": 300})
    assert [finding.anomaly_id for finding in outcome.updated] == [anomaly.anomaly_id]


async def test_of_three_charges_two_must_be_refunded(history: History):
    keys = {"a": 0, "b": 1, "c": 2}
    await history.see(*(charge(key, minute, customer_id="cus_1") for key, minute in keys.items()))

    await history.see(charge("b", 1, customer_id="cus_1", amount_refunded=1000, snapshot=2, updated=30))
    after_one = await history.anomaly()
    await history.see(charge("c", 2, customer_id="cus_1", amount_refunded=1000, snapshot=2, updated=40))
    after_two = await history.anomaly()

    assert (after_one.status, after_one.amounts) == ("open", {"usd": 1000})
    assert (after_two.status, after_two.amounts, after_two.resolved_at) == ("resolved", {"usd": 0}, at(40))


async def test_buying_anew_after_a_refund_is_no_duplicate(history: History):
    first = charge("a", 0, customer_id="cus_1", amount_refunded=1000, snapshot=2, updated=3)

    await history.see(first, refund("a", 3, of=first), charge("b", 5, customer_id="cus_1"))

    assert await history.anomalies() == []


async def test_a_refund_that_failed_gave_nothing_back(history: History):
    first = charge("a", 0, customer_id="cus_1")
    await history.see(first, refund("a", 3, of=first), charge("b", 5, customer_id="cus_1"))

    outcome = await history.see(refund("a", 3, of=first, status="failed", snapshot=2))

    assert len(outcome.opened) == 1
    assert (await history.anomaly()).status == "open"


async def test_a_dispute_does_not_touch_a_duplicate(history: History):
    await history.see(charge("a", 0, customer_id="cus_1"), charge("b", 4, customer_id="cus_1"))

    outcome = await history.see(charge("b", 4, customer_id="cus_1", disputed=True, snapshot=2, updated=900))

    assert (outcome.opened, outcome.updated, outcome.resolved) == ((), (), ())


async def test_zero_decimal_currencies_are_written_as_they_are(history: History):
    await history.see(
        charge("a", 0, customer_id="cus_1", amount=500, currency="jpy"), charge("b", 0.5, customer_id="cus_1", amount=500, currency="jpy")
    )

    assert (await history.anomaly()).summary == "cus_1 was charged 500 JPY 2 times within 30 seconds; 500 JPY too much"


async def test_a_wider_window_finds_what_is_further_apart(history: History):
    history.thresholds = {"duplicate_charge": DuplicateCharge(window_minutes=30)}

    await history.see(charge("a", 0, customer_id="cus_1"), charge("b", 25, customer_id="cus_1"))

    assert len(await history.anomalies()) == 1


@pytest.mark.parametrize("invoices_first", [True, False])
async def test_payments_named_by_two_invoices_are_no_duplicate(history: History, invoices_first: bool):
    charges = [charge(key, minutes, customer_id="cus_1") for key, minutes in (("a", 0), ("b", 4))]
    invoices = [invoice(key, -DAY, payment_ids=[f"pi_{key}"]) for key in ("a", "b")]

    for rows in (invoices, charges) if invoices_first else (charges, invoices):
        await history.see(*rows)

    assert await history.anomalies() == []


async def test_payments_named_by_one_invoice_are_a_duplicate(history: History):
    await history.see(*(charge(key, minutes, customer_id="cus_1") for key, minutes in (("a", 0), ("b", 4))))
    await history.see(invoice("a", -DAY, payment_ids=["pi_a", "pi_b"]))

    assert (await history.anomaly()).detector == "duplicate_charge"


@pytest.mark.parametrize(("seller", "found"), [("acct_1", 1), ("acct_2", 0), (None, 0)])
async def test_charges_of_one_order_to_two_sellers_are_no_duplicate(history: History, seller: str | None, found: int):
    order = {"customer_id": "cus_1", "order_reference": "cart_1"}

    await history.see(charge("a", 0, destination="acct_1", **order), charge("b", 1, destination=seller, **order))

    assert len(await history.anomalies()) == found


@pytest.mark.parametrize(
    ("second", "found"),
    [
        pytest.param({"price_id": "price_1", "quantity": 1}, 1, id="equal"),
        pytest.param({"price_id": "price_2", "quantity": 1}, 0, id="other price"),
        pytest.param({"price_id": "price_1", "quantity": 2}, 0, id="other quantity"),
    ],
)
async def test_equal_subscriptions_begun_within_the_window_are_a_duplicate(history: History, second: dict[str, object], found: int):
    paid = {"customer_id": "cus_1", "from_invoice": True}
    begun = [
        subscription("a", 0, customer_id="cus_1", items=[item(1000, price_id="price_1", quantity=1)]),
        subscription("b", 1, customer_id="cus_1", items=[item(1000, **second)]),
    ]

    await history.see(charge("a", 0.1, **paid), charge("b", 1.1, **paid))
    await history.see(*begun)

    anomalies = await history.anomalies("duplicate_charge")
    assert len(anomalies) == found
    assert all(anomaly.evidence["objects"]["subscriptions"] == ["sub_a", "sub_b"] for anomaly in anomalies)


async def test_refund_that_failed_leaves_a_duplicate_open(history: History):
    charges = [charge(key, minutes, customer_id="cus_1") for key, minutes in (("a", 0), ("b", 4))]
    returned = charge("b", 4, customer_id="cus_1", snapshot=2, updated=60, amount_refunded=1000)
    failed = msgspec.structs.replace(refund("b", 50, of=charges[1], status="failed", snapshot=2), updated_at=at(5 * DAY))
    await history.see(*charges, returned)

    before = await history.anomaly()
    await history.see(failed)

    assert (before.status, before.amounts) == ("resolved", {"usd": 0})
    assert ((await history.anomaly()).status, (await history.anomaly()).amounts) == ("open", {"usd": 1000})
