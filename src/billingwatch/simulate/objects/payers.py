"""Who pays, and with which card."""

from __future__ import annotations

import calendar

import msgspec

from billingwatch.simulate.objects.discounts import Discount
from billingwatch.simulate.objects.shapes import Shape, StripeObject


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A card, saved as one payment method."""

    payment_method: str = "pm_1PgcB7WZ01zgkWlHVgdEGJ0"
    brand: str = "visa"
    last4: str = "4242"
    fingerprint: str = "AOB934RVNwzk6xtn"
    country: str = "US"
    funding: str = "credit"
    exp_month: int = 8
    exp_year: int = 2030

    def ends(self) -> int:
        """Give the first second (Unix, UTC) at which it is no longer good."""
        year, month = divmod(self.exp_year * 12 + self.exp_month, 12)
        return calendar.timegm((year, month + 1, 1, 0, 0, 0))

    def expired(self, when: int) -> bool:
        return self.ends() <= when


class Payer(msgspec.Struct, frozen=True, kw_only=True):
    """A person and their card; a guest has no customer."""

    customer: str | None = "cus_QXg1o8vcGmoR32"
    name: str = "Jenny Rosen"
    email: str = "jenny.rosen@example.com"
    line1: str = "510 Townsend Street"
    city: str = "San Francisco"
    state: str | None = "CA"
    postal_code: str = "94103"
    country: str = "US"
    card: Card = Card()

    def address(self) -> StripeObject:
        """Give the billing address."""
        return {
            "city": self.city,
            "country": self.country,
            "line1": self.line1,
            "line2": None,
            "postal_code": self.postal_code,
            "state": self.state,
        }

    def billing_details(self, shape: Shape) -> StripeObject:
        """Give what charges and payment methods say of their payer."""
        details: StripeObject = {"address": self.address(), "email": self.email, "name": self.name, "phone": None}
        return details if shape == "legacy" else {**details, "tax_id": None}


class PaymentMethod(msgspec.Struct, kw_only=True):
    """`payment_method`: a payer's card."""

    payer: Payer
    created: int
    id: str = ""

    def __post_init__(self) -> None:
        self.id = self.payer.card.payment_method

    def render(self, shape: Shape, *, livemode: bool) -> StripeObject:
        """Give the payment method as Stripe would send it."""
        card = self.payer.card
        method: StripeObject = {
            "id": self.id,
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "billing_details": self.payer.billing_details(shape),
            "card": {
                "brand": card.brand,
                "checks": {"address_line1_check": "pass", "address_postal_code_check": "pass", "cvc_check": "pass"},
                "country": card.country,
                "display_brand": card.brand,
                "exp_month": card.exp_month,
                "exp_year": card.exp_year,
                "fingerprint": card.fingerprint,
                "funding": card.funding,
                "generated_from": None,
                "last4": card.last4,
                "networks": {"available": [card.brand], "preferred": None},
                "three_d_secure_usage": {"supported": True},
                "wallet": None,
            },
            "created": self.created,
            "customer": self.payer.customer,
            "livemode": livemode,
            "metadata": {},
            "type": "card",
        }
        if shape == "current":
            method["customer_account"] = None
            method["card"]["regulated_status"] = "unregulated"
        return method


class Customer(msgspec.Struct, kw_only=True):
    """`customer`: with the balance that its next invoices draw on."""

    id: str = "cus_QXg1o8vcGmoR32"
    payer: Payer = Payer()
    currency: str = "usd"
    created: int = 1_767_225_600
    balance: int = 0
    """Minor units; negative is a credit."""
    delinquent: bool = False
    default_payment_method: str | None = None
    invoice_prefix: str = "7FE1103"
    invoice_sequence: int = 1
    discount: Discount | None = None

    def render(self, shape: Shape, *, livemode: bool) -> StripeObject:
        """Give the customer as Stripe would send it."""
        customer: StripeObject = {
            "id": self.id,
            "object": "customer",
            "address": self.payer.address(),
            "balance": self.balance,
            "created": self.created,
            "currency": self.currency,
            "default_source": None,
            "delinquent": self.delinquent,
            "description": None,
            "discount": self.discount.render(shape, livemode=livemode) if self.discount else None,
            "email": self.payer.email,
            "invoice_prefix": self.invoice_prefix,
            "invoice_settings": {
                "custom_fields": None,
                "default_payment_method": self.default_payment_method,
                "footer": None,
                "rendering_options": None,
            },
            "livemode": livemode,
            "metadata": {},
            "name": self.payer.name,
            "next_invoice_sequence": self.invoice_sequence,
            "phone": None,
            "preferred_locales": ["en"],
            "shipping": None,
            "tax_exempt": "none",
            "test_clock": None,
        }
        if shape == "current":
            customer["customer_account"] = None
        return customer
