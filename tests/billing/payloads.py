"""Stripe's events as JSON gives them, in the shapes of several API versions, with only the fields that a test changes spelled out."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

NOW = 1_767_225_600  # 2026-01-01T00:00:00Z
DAY = 86_400


def event(kind: str, inside: object, *, event_id: str = "evt_1", created: int = NOW, **envelope: object) -> Json:
    return {
        "id": event_id,
        "object": "event",
        "api_version": "2026-06-24.dahlia",
        "created": created,
        "data": {"object": inside},
        "livemode": True,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
        **envelope,
    }


def listed(*entries: object, **more: object) -> Json:
    return {"object": "list", "data": list(entries), "has_more": False, "url": "/v1/…", **more}


def charge(charge_id: str = "ch_1", **fields: object) -> Json:
    return {
        "id": charge_id,
        "object": "charge",
        "amount": 2000,
        "amount_captured": 2000,
        "amount_refunded": 0,
        "captured": True,
        "created": NOW,
        "currency": "usd",
        "customer": "cus_1",
        "description": None,
        "disputed": False,
        "failure_code": None,
        "metadata": {},
        "outcome": {"network_decline_code": None, "reason": None, "risk_level": "normal", "type": "authorized"},
        "payment_intent": "pi_1",
        "payment_method_details": {"card": {"brand": "visa", "country": "US", "fingerprint": "fp_1", "last4": "4242"}, "type": "card"},
        "status": "succeeded",
        "transfer_group": None,
        **fields,
    }


def ancient_charge(**fields: object) -> Json:
    """A charge as API version 2013-08-13 wrote it."""
    return {
        "id": "ch_old",
        "object": "charge",
        "amount": 700,
        "amount_refunded": 0,
        "captured": True,
        "card": {"object": "card", "type": "Visa", "fingerprint": "fp_old", "country": "FR", "last4": "4242"},
        "created": 1_380_000_000,
        "currency": "EUR",
        "customer": None,
        "dispute": None,
        "failure_code": None,
        "failure_message": None,
        "fee_details": [],
        "invoice": None,
        "livemode": True,
        "paid": True,
        "refunded": False,
        "refunds": [],
        **fields,
    }


def invoice(invoice_id: str = "in_1", **fields: object) -> Json:
    """An invoice since API version 2025-03-31."""
    return {
        "id": invoice_id,
        "object": "invoice",
        "amount_due": 2000,
        "amount_paid": 0,
        "amount_remaining": 2000,
        "attempt_count": 0,
        "billing_reason": "subscription_cycle",
        "collection_method": "charge_automatically",
        "created": NOW,
        "currency": "usd",
        "customer": "cus_1",
        "due_date": None,
        "ending_balance": None,
        "lines": listed(),
        "next_payment_attempt": None,
        "number": "ABC-0001",
        "parent": {
            "type": "subscription_details",
            "quote_details": None,
            "subscription_details": {"subscription": "sub_1", "metadata": {}},
        },
        "period_end": NOW,
        "period_start": NOW - 31 * DAY,
        "starting_balance": 0,
        "status": "open",
        "status_transitions": {"finalized_at": None, "marked_uncollectible_at": None, "paid_at": None, "voided_at": None},
        "subtotal": 2000,
        "total": 2000,
        **fields,
    }


def legacy_invoice(invoice_id: str = "in_1", **fields: object) -> Json:
    """An invoice before API version 2025-03-31."""
    modern = invoice(invoice_id, subscription="sub_1", charge=None, payment_intent=None, paid=False)
    del modern["parent"]
    return {**modern, **fields}


def invoice_payment(invoice_id: str = "in_1", payment: Json | None = None, **fields: object) -> Json:
    return {
        "id": "inpay_1",
        "object": "invoice_payment",
        "amount_paid": 2000,
        "amount_requested": 2000,
        "created": NOW,
        "currency": "usd",
        "invoice": invoice_id,
        "is_default": True,
        "payment": payment or {"type": "payment_intent", "payment_intent": "pi_1"},
        "status": "paid",
        "status_transitions": {"canceled_at": None, "paid_at": NOW},
        **fields,
    }


def price(unit_amount: int | None = 2000, interval: str = "month", interval_count: int = 1, **fields: object) -> Json:
    return {
        "id": "price_1",
        "object": "price",
        "billing_scheme": "per_unit",
        "currency": "usd",
        "recurring": {"interval": interval, "interval_count": interval_count, "usage_type": "licensed"},
        "unit_amount": unit_amount,
        "unit_amount_decimal": None if unit_amount is None else str(unit_amount),
        **fields,
    }


def item(item_id: str = "si_1", **fields: object) -> Json:
    return {
        "id": item_id,
        "object": "subscription_item",
        "current_period_start": NOW,
        "current_period_end": NOW + 31 * DAY,
        "discounts": [],
        "price": price(),
        "quantity": 1,
        **fields,
    }


def subscription(subscription_id: str = "sub_1", *items: Json, **fields: object) -> Json:
    """A subscription since API version 2025-03-31."""
    return {
        "id": subscription_id,
        "object": "subscription",
        "billing_cycle_anchor": NOW,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "collection_method": "charge_automatically",
        "created": NOW,
        "currency": "usd",
        "customer": "cus_1",
        "default_payment_method": "pm_1",
        "discounts": [],
        "ended_at": None,
        "items": listed(*(items or (item(),))),
        "pause_collection": None,
        "status": "active",
        "trial_end": None,
        **fields,
    }


def dispute(dispute_id: str = "dp_1", **fields: object) -> Json:
    return {
        "id": dispute_id,
        "object": "dispute",
        "amount": 1500,
        "charge": "ch_1",
        "created": NOW,
        "currency": "eur",
        "evidence_details": {"due_by": NOW + 7 * DAY, "has_evidence": False},
        "payment_intent": "pi_1",
        "reason": "fraudulent",
        "status": "needs_response",
        **fields,
    }


def early_fraud_warning(**fields: object) -> Json:
    return {
        "id": "issfr_1",
        "object": "radar.early_fraud_warning",
        "actionable": True,
        "charge": "ch_1",
        "created": NOW,
        "fraud_type": "unauthorized_use_of_card",
        "payment_intent": "pi_1",
        **fields,
    }


def refund(refund_id: str = "re_1", **fields: object) -> Json:
    return {
        "id": refund_id,
        "object": "refund",
        "amount": 500,
        "charge": "ch_1",
        "created": NOW,
        "currency": "usd",
        "payment_intent": "pi_1",
        "reason": "requested_by_customer",
        "status": "succeeded",
        **fields,
    }


def customer(customer_id: str = "cus_1", **fields: object) -> Json:
    return {
        "id": customer_id,
        "object": "customer",
        "created": NOW,
        "currency": "usd",
        "default_source": None,
        "delinquent": False,
        "email": "jenny@example.com",
        "invoice_settings": {"default_payment_method": "pm_1"},
        "name": "Jenny Rosen",
        **fields,
    }


def payment_method(method_id: str = "pm_1", **fields: object) -> Json:
    return {
        "id": method_id,
        "object": "payment_method",
        "card": {"brand": "visa", "exp_month": 8, "exp_year": 2030, "fingerprint": "fp_1", "last4": "4242"},
        "created": NOW,
        "customer": "cus_1",
        "type": "card",
        **fields,
    }
