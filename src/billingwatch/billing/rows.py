"""Rows of the projected tables: one struct per table with exactly its columns, all read from one event."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, TypeAlias

import msgspec

Json: TypeAlias = dict[str, str | int | bool | None]


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The columns that every projected table has."""

    table: ClassVar[str]
    key_column: ClassVar[str]

    account: str | None
    created_at: datetime
    updated_at: datetime
    event_id: str
    version: str

    @property
    def key(self) -> str:
        """Stripe's id of the object."""
        key: str = getattr(self, self.key_column)
        return key


class Charge(Snapshot, frozen=True, kw_only=True):
    table = "charges"
    key_column = "charge_id"

    charge_id: str
    payment_id: str
    payment_intent_id: str | None
    invoice_id: str | None
    from_invoice: bool
    customer_id: str | None
    payer: str | None
    amount: int
    amount_captured: int
    amount_refunded: int
    currency: str
    status: str
    captured: bool
    disputed: bool
    failure_code: str | None
    decline_code: str | None
    outcome_type: str | None
    risk_level: str | None
    payment_method_type: str | None
    card_fingerprint: str | None
    card_country: str | None
    order_reference: str | None
    destination: str | None = None
    amount_released: int = 0


class Invoice(Snapshot, frozen=True, kw_only=True):
    table = "invoices"
    key_column = "invoice_id"

    invoice_id: str
    customer_id: str | None
    subscription_id: str | None
    number: str | None
    status: str
    billing_reason: str | None
    collection_method: str | None
    currency: str | None
    total: int | None
    subtotal: int | None
    amount_due: int | None
    amount_paid: int | None
    amount_remaining: int | None
    starting_balance: int | None
    ending_balance: int | None
    attempt_count: int | None
    next_payment_attempt_at: datetime | None
    period_start_at: datetime | None
    period_end_at: datetime | None
    due_at: datetime | None
    finalized_at: datetime | None
    paid_at: datetime | None
    voided_at: datetime | None
    payment_ids: list[str]
    """Sorted and unique. The table holds the union over all snapshots and payments, whichever is newest."""
    lines: list[Json] | None
    discount_amount: int | None
    tax_amount: int | None


class Subscription(Snapshot, frozen=True, kw_only=True):
    table = "subscriptions"
    key_column = "subscription_id"

    subscription_id: str
    customer_id: str | None
    status: str
    collection_method: str | None
    currency: str | None
    items: list[Json]
    mrr: int | None
    period_start_at: datetime | None
    period_end_at: datetime | None
    billing_cycle_anchor_at: datetime | None
    trial_end_at: datetime | None
    cancel_at_period_end: bool
    cancel_at: datetime | None
    canceled_at: datetime | None
    ended_at: datetime | None
    collection_paused: bool
    discounted: bool
    default_payment_method_id: str | None


class Dispute(Snapshot, frozen=True, kw_only=True):
    table = "disputes"
    key_column = "dispute_id"

    dispute_id: str
    kind: str
    charge_id: str | None
    payment_intent_id: str | None
    amount: int | None
    currency: str | None
    reason: str | None
    status: str | None
    actionable: bool | None
    evidence_due_at: datetime | None


class Refund(Snapshot, frozen=True, kw_only=True):
    table = "refunds"
    key_column = "refund_id"

    refund_id: str
    charge_id: str | None
    payment_intent_id: str | None
    amount: int
    currency: str
    status: str | None
    reason: str | None
    failure_reason: str | None


class Customer(Snapshot, frozen=True, kw_only=True):
    table = "customers"
    key_column = "customer_id"

    customer_id: str
    email: str | None
    name: str | None
    currency: str | None
    delinquent: bool | None
    default_payment_method_id: str | None
    deleted: bool


class PaymentMethod(Snapshot, frozen=True, kw_only=True):
    table = "payment_methods"
    key_column = "payment_method_id"

    payment_method_id: str
    customer_id: str | None
    type: str | None
    card_brand: str | None
    card_last4: str | None
    card_fingerprint: str | None
    card_exp_month: int | None
    card_exp_year: int | None


Row: TypeAlias = Charge | Invoice | Subscription | Dispute | Refund | Customer | PaymentMethod
