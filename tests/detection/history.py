"""Rows as projection writes them, and a tenant's history made of them. Times are minutes after NOON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from billingwatch.billing.rows import Charge, Customer, Dispute, Invoice, PaymentMethod, Refund, Row, Subscription
from billingwatch.billing.store import project
from billingwatch.detection.detector import Thresholds
from billingwatch.detection.engine import DetectionOutcome, detect, judge_time, settle
from billingwatch.detection.looks import shift
from billingwatch.detection.registry import DETECTORS
from billingwatch.detection.store import Anomaly, AnomalyFilter, list_anomalies
from billingwatch.detection.tuning import Tuning
from billingwatch.postgres.connections import TenantConnection

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
LATER = NOON + timedelta(days=365)
DAY = 24 * 60  # minutes


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def _stamp(key: str, minutes: float, snapshot: int, updated: float | None, account: str | None) -> dict[str, Any]:
    updated_at = at(minutes if updated is None else updated)
    return {
        "account": account,
        "created_at": at(minutes),
        "updated_at": updated_at,
        "event_id": f"evt_{key}_{snapshot}",
        "version": f"1{snapshot:04d}",
    }


def charge(
    key: str, minutes: float = 0, *, snapshot: int = 1, updated: float | None = None, account: str | None = None, **fields: Any
) -> Charge:
    """Unless told otherwise: a card payment of 10.00 USD that succeeded, of a payment and a customer of its own."""
    status = fields.get("status", "succeeded")
    defaults: dict[str, Any] = {
        "payment_id": f"pi_{key}",
        "payment_intent_id": f"pi_{key}",
        "invoice_id": None,
        "from_invoice": False,
        "customer_id": f"cus_{key}",
        "payer": fields.get("customer_id", f"cus_{key}"),
        "amount": 1000,
        "amount_captured": fields.get("amount", 1000) if fields.get("captured", status == "succeeded") else 0,
        "amount_refunded": 0,
        "currency": "usd",
        "status": status,
        "captured": status == "succeeded",
        "disputed": False,
        "failure_code": None,
        "decline_code": None,
        "outcome_type": "issuer_declined" if status == "failed" else "authorized",
        "risk_level": None,
        "payment_method_type": "card",
        "card_fingerprint": None,
        "card_country": None,
        "order_reference": None,
    }
    return Charge(charge_id=f"ch_{key}", **{**defaults, **fields}, **_stamp(key, minutes, snapshot, updated, account))


def failed(key: str, minutes: float = 0, **fields: Any) -> Charge:
    return charge(key, minutes, **{"status": "failed", "decline_code": "do_not_honor", **fields})


def blocked(key: str, minutes: float = 0, **fields: Any) -> Charge:
    return charge(key, minutes, **{"status": "failed", "outcome_type": "blocked", **fields})


def dispute(
    key: str, minutes: float = 0, *, snapshot: int = 1, updated: float | None = None, account: str | None = None, **fields: Any
) -> Dispute:
    """Unless told otherwise: a dispute for fraud over the charge of the same key."""
    defaults: dict[str, Any] = {
        "kind": "dispute",
        "charge_id": f"ch_{key}",
        "payment_intent_id": None,
        "amount": 1000,
        "currency": "usd",
        "reason": "fraudulent",
        "status": "needs_response",
        "actionable": None,
        "evidence_due_at": None,
    }
    return Dispute(dispute_id=f"dp_{key}", **{**defaults, **fields}, **_stamp(f"dp_{key}", minutes, snapshot, updated, account))


def warning(key: str, minutes: float = 0, **fields: Any) -> Dispute:
    """An early fraud warning about the charge of the same key."""
    made = {"kind": "early_fraud_warning", "amount": None, "currency": None, "reason": "made_with_stolen_card", "status": None}
    return dispute(f"efw_{key}", minutes, **{"charge_id": f"ch_{key}", **made, **fields})


def refund(key: str, minutes: float = 0, *, of: Charge, **fields: Any) -> Refund:
    defaults: dict[str, Any] = {
        "charge_id": of.charge_id,
        "payment_intent_id": of.payment_intent_id,
        "amount": of.amount,
        "currency": of.currency,
        "status": "succeeded",
        "reason": None,
        "failure_reason": None,
    }
    snapshot = fields.pop("snapshot", 1)
    return Refund(refund_id=f"re_{key}", **{**defaults, **fields}, **_stamp(f"re_{key}", minutes, snapshot, None, of.account))


def invoice(
    key: str, minutes: float = 0, *, snapshot: int = 1, updated: float | None = None, account: str | None = None, **fields: Any
) -> Invoice:
    """Unless told otherwise: a paid renewal of 10.00 USD."""
    total = fields.get("total", 1000)
    defaults: dict[str, Any] = {
        "customer_id": f"cus_{key}",
        "subscription_id": f"sub_{key}",
        "number": None,
        "status": "paid",
        "billing_reason": "subscription_cycle",
        "collection_method": "charge_automatically",
        "currency": "usd",
        "total": total,
        "subtotal": total,
        "amount_due": max(total, 0),
        "amount_paid": max(total, 0),
        "amount_remaining": 0,
        "starting_balance": 0,
        "ending_balance": min(total, 0),
        "attempt_count": 1,
        "next_payment_attempt_at": None,
        "period_start_at": None,
        "period_end_at": None,
        "due_at": None,
        "finalized_at": at(minutes + 60),
        "paid_at": None,
        "voided_at": None,
        "payment_ids": [],
        "lines": None,
        "discount_amount": None,
        "tax_amount": None,
    }
    return Invoice(invoice_id=f"in_{key}", **{**defaults, **fields}, **_stamp(f"in_{key}", minutes, snapshot, updated, account))


def unpaid(key: str, minutes: float = 0, **fields: Any) -> Invoice:
    """Unless told otherwise: an invoice of 10.00 USD whose last attempt failed, and none follows."""
    owed = fields.get("total", 1000)
    return invoice(key, minutes, **{"status": "open", "amount_paid": 0, "amount_remaining": owed, "attempt_count": 4, **fields})


def subscription(
    key: str, minutes: float = 0, *, snapshot: int = 1, updated: float | None = None, account: str | None = None, **fields: Any
) -> Subscription:
    """Unless told otherwise: an active one to a monthly plan of 10.00 USD, renewing in thirty days. Once it is over, no later snapshot replaces it."""
    status, mrr = fields.get("status", "active"), fields.get("mrr", 1000)
    ended = status in {"canceled", "incomplete_expired"}
    stamp = _stamp(f"sub_{key}", minutes, snapshot, updated, account)
    defaults: dict[str, Any] = {
        "customer_id": f"cus_{key}",
        "status": status,
        "collection_method": "charge_automatically",
        "currency": "usd",
        "items": [item(mrr or 0)],
        "mrr": mrr,
        "period_start_at": stamp["updated_at"],
        "period_end_at": shift(stamp["updated_at"], timedelta(days=30)),
        "billing_cycle_anchor_at": at(minutes),
        "trial_end_at": None,
        "cancel_at_period_end": False,
        "cancel_at": None,
        "canceled_at": None,
        "ended_at": stamp["updated_at"] if ended else None,
        "collection_paused": False,
        "discounted": False,
        "default_payment_method_id": None,
    }
    if ended:
        stamp["version"] = "2" + stamp["version"][1:]
    return Subscription(subscription_id=f"sub_{key}", **{**defaults, **fields}, **stamp)


def item(unit_amount: int | None, **fields: Any) -> dict[str, Any]:
    """An item of a subscription; a licensed monthly price unless told otherwise."""
    return {
        "item_id": "si_1",
        "price_id": f"price_{unit_amount}",
        "unit_amount": unit_amount,
        "quantity": 1,
        "interval": "month",
        "interval_count": 1,
        "usage_type": "licensed",
        "period_start": None,
        "period_end": None,
        **fields,
    }


def customer(
    key: str, minutes: float = 0, *, snapshot: int = 1, updated: float | None = None, account: str | None = None, **fields: Any
) -> Customer:
    defaults: dict[str, Any] = {
        "email": None,
        "name": None,
        "currency": None,
        "delinquent": False,
        "default_payment_method_id": None,
        "deleted": False,
    }
    return Customer(customer_id=f"cus_{key}", **{**defaults, **fields}, **_stamp(f"cus_{key}", minutes, snapshot, updated, account))


def payment_method(
    key: str, minutes: float = 0, *, snapshot: int = 1, updated: float | None = None, account: str | None = None, **fields: Any
) -> PaymentMethod:
    """Unless told otherwise: a card of the customer of the same key that is good for years."""
    defaults: dict[str, Any] = {
        "customer_id": f"cus_{key}",
        "type": "card",
        "card_brand": "visa",
        "card_last4": "4242",
        "card_fingerprint": None,
        "card_exp_month": 12,
        "card_exp_year": 2032,
    }
    return PaymentMethod(
        payment_method_id=f"pm_{key}", **{**defaults, **fields}, **_stamp(f"pm_{key}", minutes, snapshot, updated, account)
    )


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """An event as ingest records it, or another delivery of one that is recorded."""

    event_id: str
    occurred_at: datetime
    signed_at: datetime | None
    received_at: datetime
    account: str | None = None
    type: str = "charge.succeeded"
    disposition: str = "process"


def delivery(key: str, minutes: float = 0, *, sent: float = 0, travelled: float = 0.2, **fields: Any) -> Delivery:
    """Received at `minutes`, `travelled` seconds after Stripe sent it, which was `sent` seconds after it happened."""
    received_at = at(minutes)
    signed_at = received_at - timedelta(seconds=travelled)
    times = {"occurred_at": signed_at - timedelta(seconds=sent), "signed_at": signed_at, "received_at": received_at}
    return Delivery(event_id=f"evt_{key}", **{**times, **fields})


def replayed(key: str, minutes: float = 0, *, ago: float = 0, **fields: Any) -> Delivery:
    """An event of `ago` minutes before that did not come through the webhook."""
    return delivery(key, minutes, signed_at=None, occurred_at=at(minutes - ago), **fields)


class History:
    """What happened to one tenant."""

    def __init__(self, tenant: TenantConnection) -> None:
        self.tenant = tenant
        self.thresholds: Mapping[str, Thresholds] = {}
        self.judged_until: datetime | None = None
        self.only: str | None = None
        """The one detector that is not off."""

    @property
    def tuning(self) -> Tuning:
        off = frozenset() if self.only is None else frozenset(DETECTORS) - {self.only}
        return Tuning(thresholds=self.thresholds, off=off)

    async def see(self, *rows: Row, as_of: datetime = LATER) -> DetectionOutcome:
        """One visit with these rows."""
        changes = await project(self.tenant, rows)
        return await detect(self.tenant, changes, as_of=as_of, tuning=self.tuning, judged_until=self.judged_until)

    async def receive(self, *deliveries: Delivery) -> None:
        """What ingest writes when these arrive."""
        await self.tenant.executemany(
            """
            INSERT INTO events (
                event_id, type, livemode, account, occurred_at, signed_at, received_at, last_received_at, disposition, payload
            )
            VALUES ($1, $2, true, $3, $4, $5, $6, $6, $7, '{}')
            ON CONFLICT ON CONSTRAINT events_pkey DO UPDATE
            SET deliveries = events.deliveries + 1, last_received_at = greatest(events.last_received_at, excluded.last_received_at)
            """,
            [(d.event_id, d.type, d.account, d.occurred_at, d.signed_at, d.received_at, d.disposition) for d in deliveries],
        )

    async def tick(self, until: datetime, *, as_of: datetime | None = None) -> DetectionOutcome:
        """Let the detectors of time judge what they have not judged, up to `until`."""
        since, self.judged_until = self.judged_until or until - timedelta(days=60), until
        return await judge_time(self.tenant, since=since, until=until, as_of=as_of or until, tuning=self.tuning)

    async def settle(self, *, as_of: datetime) -> DetectionOutcome:
        return await settle(self.tenant, as_of=as_of, tuning=self.tuning)

    async def anomalies(self, detector: str | None = None, *, retracted: bool = False) -> list[Anomaly]:
        """Oldest first."""
        return (await list_anomalies(self.tenant, AnomalyFilter(detector=detector, retracted=retracted), limit=1000))[::-1]

    async def anomaly(self) -> Anomaly:
        (anomaly,) = await self.anomalies()
        return anomaly
