"""What is sold by the month or the year: `price`, `plan` and `subscription`."""

from __future__ import annotations

from typing import Literal

import msgspec

from billingwatch.simulate.objects.discounts import Discount
from billingwatch.simulate.objects.shapes import Shape, StripeObject

Interval = Literal["month", "year"]


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """`price`, and the `plan` that Stripe still shows beside it."""

    id: str = "price_1PgafmB7WZ01zgkW6dKueIc5"
    product: str = "prod_QXg1hqf4jFNsqG"
    nickname: str = "Starter"
    unit_amount: int = 2900
    currency: str = "usd"
    interval: Interval = "month"
    created: int = 1_704_067_200

    def render(self, *, livemode: bool) -> StripeObject:
        return {
            "id": self.id,
            "object": "price",
            "active": True,
            "billing_scheme": "per_unit",
            "created": self.created,
            "currency": self.currency,
            "custom_unit_amount": None,
            "livemode": livemode,
            "lookup_key": None,
            "metadata": {},
            "nickname": self.nickname,
            "product": self.product,
            "recurring": {
                "interval": self.interval,
                "interval_count": 1,
                "meter": None,
                "trial_period_days": None,
                "usage_type": "licensed",
            },
            "tax_behavior": "exclusive",
            "tiers_mode": None,
            "transform_quantity": None,
            "type": "recurring",
            "unit_amount": self.unit_amount,
            "unit_amount_decimal": str(self.unit_amount),
        }

    def render_plan(self, *, livemode: bool) -> StripeObject:
        return {
            "id": self.id,
            "object": "plan",
            "active": True,
            "amount": self.unit_amount,
            "amount_decimal": str(self.unit_amount),
            "billing_scheme": "per_unit",
            "created": self.created,
            "currency": self.currency,
            "interval": self.interval,
            "interval_count": 1,
            "livemode": livemode,
            "metadata": {},
            "meter": None,
            "nickname": self.nickname,
            "product": self.product,
            "tiers_mode": None,
            "transform_usage": None,
            "trial_period_days": None,
            "usage_type": "licensed",
        }


class Subscription(msgspec.Struct, kw_only=True):
    """`subscription`: one item, paid in advance."""

    id: str = "sub_1Pgc6rB7WZ01zgkWNy0Cn5nw"
    item_id: str = "si_QXhVnC2h0Jczwc"
    customer: str = "cus_QXg1o8vcGmoR32"
    price: Price = Price()
    quantity: int = 1
    status: str = "active"
    created: int = 1_767_225_600
    period_start: int = 1_767_225_600
    period_end: int = 1_769_904_000
    default_payment_method: str | None = None
    discount: Discount | None = None
    latest_invoice: str | None = None
    cancel_at_period_end: bool = False
    canceled_at: int | None = None
    ended_at: int | None = None
    cancellation_reason: str | None = None
    trial_end: int | None = None
    resumes_at: int | None = None
    """While collection is paused, when it is to go on."""
    metadata: dict[str, str] = msgspec.field(default_factory=dict)

    def render(self, shape: Shape, *, livemode: bool) -> StripeObject:
        """Give the subscription as Stripe would send it: its period stood on top once, on the items now."""
        period = {"current_period_end": self.period_end, "current_period_start": self.period_start}
        item: StripeObject = {
            "id": self.item_id,
            "object": "subscription_item",
            "billing_thresholds": None,
            "created": self.created,
            "discounts": [],
            "metadata": {},
            "plan": self.price.render_plan(livemode=livemode),
            "price": self.price.render(livemode=livemode),
            "quantity": self.quantity,
            "subscription": self.id,
            "tax_rates": [],
        }
        subscription: StripeObject = {
            "id": self.id,
            "object": "subscription",
            "application": None,
            "application_fee_percent": None,
            "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
            "billing_cycle_anchor": self.trial_end or self.created,
            "billing_cycle_anchor_config": None,
            "billing_thresholds": None,
            "cancel_at": self.period_end if self.cancel_at_period_end else None,
            "cancel_at_period_end": self.cancel_at_period_end,
            "canceled_at": self.canceled_at,
            "cancellation_details": {"comment": None, "feedback": None, "reason": self.cancellation_reason},
            "collection_method": "charge_automatically",
            "created": self.created,
            "currency": self.price.currency,
            "customer": self.customer,
            "days_until_due": None,
            "default_payment_method": self.default_payment_method,
            "default_source": None,
            "default_tax_rates": [],
            "description": None,
            "discounts": [self.discount.id] if self.discount else [],
            "ended_at": self.ended_at,
            "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
            "items": {
                "object": "list",
                "data": [item],
                "has_more": False,
                "total_count": 1,
                "url": f"/v1/subscription_items?subscription={self.id}",
            },
            "latest_invoice": self.latest_invoice,
            "livemode": livemode,
            "metadata": dict(self.metadata),
            "next_pending_invoice_item_invoice": None,
            "on_behalf_of": None,
            "pause_collection": {"behavior": "void", "resumes_at": self.resumes_at} if self.resumes_at else None,
            "payment_settings": {"payment_method_options": None, "payment_method_types": None, "save_default_payment_method": "off"},
            "pending_invoice_item_interval": None,
            "pending_setup_intent": None,
            "pending_update": None,
            "schedule": None,
            "start_date": self.created,
            "status": self.status,
            "test_clock": None,
            "transfer_data": None,
            "trial_end": self.trial_end,
            "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
            "trial_start": self.created if self.trial_end else None,
        }
        if shape == "legacy":
            subscription |= {
                **period,
                "discount": self.discount.render(shape, livemode=livemode) if self.discount else None,
                "plan": item["plan"],
                "quantity": self.quantity,
            }
        else:
            item |= {**period, "billed_until": self.period_end, "current_trial": None}
            subscription |= {
                "billing_mode": {"flexible": None, "type": "classic"},
                "billing_schedules": [],
                "customer_account": None,
                "managed_payments": {"enabled": False},
                "status_details": None,
            }
        return subscription
