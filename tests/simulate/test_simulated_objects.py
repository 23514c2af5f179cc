from __future__ import annotations

import msgspec
import pytest

from billingwatch.simulate.objects.declines import BLOCKED, EVERYDAY, INSUFFICIENT_FUNDS
from billingwatch.simulate.objects.discounts import Discount
from billingwatch.simulate.objects.disputes import Dispute, EarlyFraudWarning
from billingwatch.simulate.objects.invoices import Invoice, InvoicePayment, Line
from billingwatch.simulate.objects.payers import Customer, Payer, PaymentMethod
from billingwatch.simulate.objects.payments import Charge, PaymentIntent, Refund
from billingwatch.simulate.objects.shapes import API_VERSIONS, Facts, event
from billingwatch.simulate.objects.subscriptions import Subscription

OBJECTS: dict[str, Facts] = {
    "charge": Charge(invoice="in_1"),
    "payment_intent": PaymentIntent(invoice="in_1", decline=INSUFFICIENT_FUNDS),
    "refund": Refund(),
    "dispute": Dispute(),
    "radar.early_fraud_warning": EarlyFraudWarning(),
    "customer": Customer(discount=Discount()),
    "payment_method": PaymentMethod(payer=Payer(), created=1_767_225_600),
    "subscription": Subscription(discount=Discount()),
    "invoice": Invoice(
        subscription="sub_1", charge="ch_1", payment_intent="pi_1", discount=Discount(), lines=(Line(discount=580, tax=441),)
    ),
    "discount": Discount(),
}

# Object: fields of the legacy shape alone, fields of the current shape alone.
DIFFERENCES = {
    "charge": ({"invoice"}, {"presentment_details"}),
    "payment_intent": ({"invoice"}, {"customer_account", "managed_payments", "excluded_payment_method_types"}),
    "refund": (set(), {"customer", "customer_account", "payment_method"}),
    "dispute": (set(), {"enhanced_eligibility_types", "intended_submission_method"}),
    "radar.early_fraud_warning": (set(), set()),
    "customer": (set(), {"customer_account"}),
    "payment_method": (set(), {"customer_account"}),
    "subscription": (
        {"current_period_start", "current_period_end", "discount", "plan", "quantity"},
        {"billing_mode", "billing_schedules", "customer_account", "managed_payments", "status_details"},
    ),
    "invoice": (
        {
            "application_fee_amount",
            "charge",
            "discount",
            "paid",
            "paid_out_of_band",
            "payment_intent",
            "quote",
            "subscription",
            "subscription_details",
            "tax",
            "total_tax_amounts",
            "transfer_data",
        },
        {"amount_overpaid", "amount_paid_off_stripe", "customer_account", "parent", "status_details", "total_taxes"},
    ),
    "discount": ({"coupon"}, {"source", "customer_account"}),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_each_api_version_has_its_own_fields_and_lacks_the_others(name):
    only_legacy, only_current = DIFFERENCES[name]

    legacy = OBJECTS[name].render("legacy", livemode=True)
    current = OBJECTS[name].render("current", livemode=True)

    assert legacy.keys() - current.keys() == only_legacy
    assert current.keys() - legacy.keys() == only_current
    assert legacy["object"] == current["object"] == name


def test_the_subscription_of_an_invoice_moved_into_its_parent():
    invoice = Invoice(subscription="sub_1", subscription_metadata={"workspace": "ws_1"})

    legacy = invoice.render("legacy", livemode=True)
    current = invoice.render("current", livemode=True)

    assert legacy["subscription"] == "sub_1"
    assert legacy["subscription_details"]["metadata"] == {"workspace": "ws_1"}
    assert current["parent"]["type"] == "subscription_details"
    assert current["parent"]["subscription_details"] == {"subscription": "sub_1", "metadata": {"workspace": "ws_1"}}


def test_an_invoice_without_subscription_has_no_parent():
    assert Invoice().render("current", livemode=True)["parent"] is None


def test_a_line_names_its_price_directly_or_under_pricing():
    invoice = Invoice(lines=(Line(subscription="sub_1", subscription_item="si_1"),))

    (legacy,) = invoice.render("legacy", livemode=True)["lines"]["data"]
    (current,) = invoice.render("current", livemode=True)["lines"]["data"]

    assert legacy["price"]["id"] == current["pricing"]["price_details"]["price"]
    assert "price" not in current
    assert "pricing" not in legacy
    assert legacy["subscription_item"] == current["parent"]["subscription_item_details"]["subscription_item"] == "si_1"


def test_a_proration_shows_on_the_line_or_in_its_parent():
    invoice = Invoice(lines=(Line(invoice_item="ii_1", proration=True),))

    (legacy,) = invoice.render("legacy", livemode=True)["lines"]["data"]
    (current,) = invoice.render("current", livemode=True)["lines"]["data"]

    assert (legacy["type"], legacy["proration"], legacy["invoice_item"]) == ("invoiceitem", True, "ii_1")
    assert current["parent"]["type"] == "invoice_item_details"
    assert current["parent"]["invoice_item_details"]["proration"] is True
    assert "proration" not in current


def test_the_period_of_a_subscription_moved_to_its_items():
    subscription = Subscription(period_start=100, period_end=200)

    legacy = subscription.render("legacy", livemode=True)
    current = subscription.render("current", livemode=True)

    assert (legacy["current_period_start"], legacy["current_period_end"]) == (100, 200)
    assert "current_period_start" not in legacy["items"]["data"][0]
    (item,) = current["items"]["data"]
    assert (item["current_period_start"], item["current_period_end"]) == (100, 200)


def test_a_discount_holds_its_coupon_or_names_it():
    discount = Discount(coupon="LAUNCH20", percent_off=20)

    legacy = discount.render("legacy", livemode=True)
    current = discount.render("current", livemode=True)

    assert (legacy["coupon"]["id"], legacy["coupon"]["percent_off"]) == ("LAUNCH20", 20)
    assert current["source"] == {"type": "coupon", "coupon": "LAUNCH20"}


def test_taxes_are_told_in_the_words_of_the_version():
    invoice = Invoice(lines=(Line(amount=1000, tax=190),))

    legacy = invoice.render("legacy", livemode=True)
    current = invoice.render("current", livemode=True)

    assert legacy["tax"] == legacy["total_tax_amounts"][0]["amount"] == 190
    assert legacy["lines"]["data"][0]["tax_amounts"][0]["amount"] == 190
    assert current["total_taxes"][0]["amount"] == current["lines"]["data"][0]["taxes"][0]["amount"] == 190


def test_an_invoice_payment_exists_in_the_current_shape_only():
    payment = InvoicePayment(paid_at=5)

    rendered = payment.render("current", livemode=True)

    assert rendered["payment"] == {"type": "payment_intent", "payment_intent": payment.payment_intent}
    assert rendered["status_transitions"]["paid_at"] == 5
    with pytest.raises(ValueError, match="basil"):
        payment.render("legacy", livemode=True)


def test_a_refund_does_not_tell_its_mode():
    assert "livemode" not in Refund().render("current", livemode=True)


def test_a_declined_charge_says_why():
    charge = Charge(decline=INSUFFICIENT_FUNDS).render("current", livemode=True)

    assert (charge["status"], charge["paid"], charge["captured"]) == ("failed", False, False)
    assert charge["failure_code"] == "card_declined"
    assert charge["outcome"]["type"] == "issuer_declined"
    assert charge["outcome"]["reason"] == "insufficient_funds"
    assert charge["outcome"]["network_decline_code"] == "51"
    assert "network_decline_code" not in Charge(decline=INSUFFICIENT_FUNDS).render("legacy", livemode=True)["outcome"]


def test_a_blocked_charge_never_reached_the_network():
    outcome = Charge(decline=BLOCKED, risk_score=88).render("current", livemode=True)["outcome"]

    assert (outcome["type"], outcome["network_status"], outcome["risk_level"]) == ("blocked", "not_sent_to_network", "highest")


def test_an_ordinary_day_knows_many_kinds_of_declines():
    assert len({decline.reason for decline, _ in EVERYDAY}) == len(EVERYDAY) >= 10


def test_only_a_full_refund_makes_a_charge_refunded():
    part = Charge(amount=2000, amount_refunded=500).render("current", livemode=True)
    full = Charge(amount=2000, amount_refunded=2000).render("current", livemode=True)

    assert (part["amount_refunded"], part["refunded"]) == (500, False)
    assert (full["amount_refunded"], full["refunded"]) == (2000, True)


def test_an_inquiry_withdraws_no_money():
    inquiry = Dispute(status="warning_needs_response").render("current", livemode=True)
    chargeback = Dispute(amount=2000).render("current", livemode=True)

    assert inquiry["balance_transactions"] == []
    assert inquiry["payment_method_details"]["card"]["case_type"] == "inquiry"
    assert chargeback["balance_transactions"][0]["amount"] == -2000


def test_totals_are_sums_over_the_lines_and_the_balance():
    invoice = Invoice(lines=(Line(amount=2900, discount=580, tax=441), Line(amount=-500, tax=-95)), starting_balance=-1000, finalized_at=1)

    rendered = invoice.render("current", livemode=True)

    assert (rendered["subtotal"], rendered["total_excluding_tax"], rendered["total"]) == (2400, 1820, 2166)
    assert (rendered["amount_due"], rendered["amount_remaining"], rendered["ending_balance"]) == (1166, 1166, 0)


def test_a_negative_invoice_becomes_the_customers_credit():
    rendered = Invoice(lines=(Line(amount=-5000),), status="paid", finalized_at=1, paid_at=1).render("current", livemode=True)

    assert (rendered["total"], rendered["amount_due"], rendered["amount_paid"]) == (-5000, 0, 0)
    assert (rendered["starting_balance"], rendered["ending_balance"]) == (0, -5000)


@pytest.mark.parametrize("shape", API_VERSIONS)
def test_an_event_of_a_charge_is_as_large_as_stripes(shape):
    sent = event("evt_1", "charge.succeeded", Charge().render(shape, livemode=True), created=1, shape=shape)

    posted = msgspec.json.format(msgspec.json.encode(sent), indent=2)

    assert 3000 <= len(posted) <= 4200


def test_the_envelope_tells_version_account_and_cause():
    sent = event(
        "evt_1", "charge.refunded", {"id": "ch_1"}, created=7, account="acct_1", previous={"amount_refunded": 0}, request=("req_1", "key")
    )

    assert sent == {
        "id": "evt_1",
        "object": "event",
        "account": "acct_1",
        "api_version": "2026-10-28.endive",
        "created": 7,
        "data": {"object": {"id": "ch_1"}, "previous_attributes": {"amount_refunded": 0}},
        "livemode": True,
        "pending_webhooks": 1,
        "request": {"id": "req_1", "idempotency_key": "key"},
        "type": "charge.refunded",
    }
