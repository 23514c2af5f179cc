"""Coupons at work: `discount`."""

from __future__ import annotations

import msgspec

from billingwatch.simulate.objects.shapes import Shape, StripeObject


class Discount(msgspec.Struct, frozen=True, kw_only=True):
    """A percentage off for as long as the subscription lasts."""

    id: str = "di_1PgcB7WZ01zgkWDisc0001"
    coupon: str = "LAUNCH20"
    percent_off: int = 20
    customer: str | None = None
    subscription: str | None = None
    start: int = 1_767_225_600

    def render(self, shape: Shape, *, livemode: bool) -> StripeObject:
        """Give the discount as Stripe would send it: with the whole coupon once, by the coupon's id now."""
        discount: StripeObject = {
            "id": self.id,
            "object": "discount",
            "checkout_session": None,
            "customer": self.customer,
            "end": None,
            "invoice": None,
            "invoice_item": None,
            "promotion_code": None,
            "start": self.start,
            "subscription": self.subscription,
        }
        if shape == "current":
            return {**discount, "customer_account": None, "source": {"coupon": self.coupon, "type": "coupon"}, "subscription_item": None}
        coupon: StripeObject = {
            "id": self.coupon,
            "object": "coupon",
            "amount_off": None,
            "created": self.start,
            "currency": None,
            "duration": "forever",
            "duration_in_months": None,
            "livemode": livemode,
            "max_redemptions": None,
            "metadata": {},
            "name": f"{self.percent_off}% off",
            "percent_off": self.percent_off,
            "redeem_by": None,
            "times_redeemed": 1,
            "valid": True,
        }
        return {**discount, "coupon": coupon, "subscription_item": None}
