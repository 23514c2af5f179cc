"""`invoice` with its lines, and the `invoice_payment` that ties it to a payment intent. Totals are sums over the lines."""

from __future__ import annotations

import msgspec

from billingwatch.simulate.objects.discounts import Discount
from billingwatch.simulate.objects.payers import Customer
from billingwatch.simulate.objects.shapes import Shape, StripeObject
from billingwatch.simulate.objects.subscriptions import Price

TIMES = "\N{MULTIPLICATION SIGN}"
TAX_RATE = "txr_1PgafVB7WZ01zgkWVat00001"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line: what the subscription costs, or an invoice item that waited for the next invoice."""

    id: str = "il_1Pgc6sB7WZ01zgkWFnxLrLCq"
    description: str = f"1 {TIMES} Starter (at $29.00 / month)"
    amount: int = 2900
    """Minor units, before discount and tax; negative for a credit."""
    discount: int = 0
    tax: int = 0
    price: Price = Price()
    quantity: int = 1
    period_start: int = 1_767_225_600
    period_end: int = 1_769_904_000
    subscription: str | None = None
    subscription_item: str | None = None
    invoice_item: str | None = None
    proration: bool = False

    def render(self, shape: Shape, invoice: Invoice, *, livemode: bool) -> StripeObject:
        line: StripeObject = {
            "id": self.id,
            "object": "line_item",
            "amount": self.amount,
            "currency": invoice.currency,
            "description": self.description,
            "discount_amounts": [invoice.discounted(self.discount)] if self.discount and invoice.discount else [],
            "discountable": self.invoice_item is None,
            "discounts": [],
            "invoice": invoice.id,
            "livemode": livemode,
            "metadata": {},
            "period": {"end": self.period_end, "start": self.period_start},
            "pretax_credit_amounts": [],
            "quantity": self.quantity,
            "subscription": self.subscription,
        }
        taxable = self.amount - self.discount
        if shape == "legacy":
            return line | {
                "amount_excluding_tax": self.amount,
                "invoice_item": self.invoice_item,
                "plan": self.price.render_plan(livemode=livemode),
                "price": self.price.render(livemode=livemode),
                "proration": self.proration,
                "proration_details": {"credited_items": None},
                "subscription_item": self.subscription_item,
                "tax_amounts": [_tax_once(self.tax, taxable)] if self.tax else [],
                "tax_rates": [],
                "type": "subscription" if self.invoice_item is None else "invoiceitem",
                "unit_amount_excluding_tax": str(self.price.unit_amount),
            }
        return line | {
            "parent": self._parent(),
            "pricing": {
                "price_details": {"price": self.price.id, "product": self.price.product},
                "type": "price_details",
                "unit_amount_decimal": str(self.price.unit_amount),
            },
            "quantity_decimal": str(self.quantity),
            "subtotal": self.amount,
            "taxes": [_tax_now(self.tax, taxable)] if self.tax else [],
        }

    def _parent(self) -> StripeObject:
        details: StripeObject = {
            "invoice_item": self.invoice_item,
            "proration": self.proration,
            "proration_details": {"credited_items": None},
            "subscription": self.subscription,
        }
        if self.invoice_item is not None:
            return {"invoice_item_details": details, "subscription_item_details": None, "type": "invoice_item_details"}
        details["subscription_item"] = self.subscription_item
        return {"invoice_item_details": None, "subscription_item_details": details, "type": "subscription_item_details"}


class Invoice(msgspec.Struct, kw_only=True):
    """An invoice from draft to its end."""

    id: str = "in_1Pgc6tB7WZ01zgkWu9fdqL6I"
    customer: Customer = msgspec.field(default_factory=Customer)
    subscription: str | None = None
    subscription_metadata: dict[str, str] = msgspec.field(default_factory=dict)
    lines: tuple[Line, ...] = (Line(),)
    currency: str = "usd"
    billing_reason: str = "subscription_cycle"
    status: str = "draft"
    created: int = 1_769_904_000
    period_start: int = 1_767_225_600
    period_end: int = 1_769_904_000
    number: str | None = None
    discount: Discount | None = None
    starting_balance: int = 0
    """The customer's balance that it draws on; minor units, negative is a credit."""
    due_at: int | None = None
    """Of an invoice that is sent; None: the card is charged."""
    off_stripe: bool = False
    """Whether it was paid outside Stripe."""
    attempt_count: int = 0
    next_payment_attempt: int | None = None
    finalized_at: int | None = None
    paid_at: int | None = None
    uncollectible_at: int | None = None
    voided_at: int | None = None
    payment_intent: str | None = None
    charge: str | None = None

    @property
    def subtotal(self) -> int:
        return sum(line.amount for line in self.lines)

    @property
    def tax(self) -> int:
        return sum(line.tax for line in self.lines)

    @property
    def off(self) -> int:
        """What discounts take off, in minor units."""
        return sum(line.discount for line in self.lines)

    @property
    def total(self) -> int:
        return self.subtotal - self.off + self.tax

    @property
    def amount_due(self) -> int:
        return max(0, self.total + self.starting_balance)

    @property
    def ending_balance(self) -> int | None:
        return None if self.finalized_at is None else min(0, self.total + self.starting_balance)

    def discounted(self, amount: int) -> StripeObject:
        return {"amount": amount, "discount": self.discount.id if self.discount else None}

    def render(self, shape: Shape, *, livemode: bool) -> StripeObject:
        """Give the invoice as Stripe would send it."""
        payer, paid = self.customer.payer, self.status == "paid"
        hosted = f"https://invoice.stripe.com/i/acct_1{self.id[9:19]}/live_YWNjdF8x{self.id[::-1]}{self.id}" if self.finalized_at else None
        invoice: StripeObject = {
            "id": self.id,
            "object": "invoice",
            "account_country": "US",
            "account_name": "Example Company",
            "account_tax_ids": None,
            "amount_due": self.amount_due,
            "amount_paid": self.amount_due if paid else 0,
            "amount_remaining": 0 if paid else self.amount_due,
            "amount_shipping": 0,
            "application": None,
            "attempt_count": self.attempt_count,
            "attempted": self.attempt_count > 0 or (paid and not self.off_stripe),
            "auto_advance": self.status in {"draft", "open"} and self.uncollectible_at is None,
            "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None, "provider": None, "status": None},
            "automatically_finalizes_at": self.created + 3600 if self.finalized_at is None else None,
            "billing_reason": self.billing_reason,
            "collection_method": "charge_automatically" if self.due_at is None else "send_invoice",
            "created": self.created,
            "currency": self.currency,
            "custom_fields": None,
            "customer": self.customer.id,
            "customer_address": payer.address(),
            "customer_email": payer.email,
            "customer_name": payer.name,
            "customer_phone": None,
            "customer_shipping": None,
            "customer_tax_exempt": "none",
            "customer_tax_ids": [],
            "default_payment_method": None,
            "default_source": None,
            "default_tax_rates": [],
            "description": None,
            "discounts": [self.discount.id] if self.discount else [],
            "due_date": self.due_at,
            "effective_at": self.finalized_at,
            "ending_balance": self.ending_balance,
            "footer": None,
            "from_invoice": None,
            "hosted_invoice_url": f"{hosted}?s=ap" if hosted else None,
            "invoice_pdf": f"{hosted}/pdf?s=ap" if hosted else None,
            "issuer": {"type": "self"},
            "last_finalization_error": None,
            "latest_revision": None,
            "lines": {
                "object": "list",
                "data": [line.render(shape, self, livemode=livemode) for line in self.lines],
                "has_more": False,
                "total_count": len(self.lines),
                "url": f"/v1/invoices/{self.id}/lines",
            },
            "livemode": livemode,
            "metadata": {},
            "next_payment_attempt": self.next_payment_attempt,
            "number": self.number,
            "on_behalf_of": None,
            "payment_settings": {"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
            "period_end": self.period_end,
            "period_start": self.period_start,
            "post_payment_credit_notes_amount": 0,
            "pre_payment_credit_notes_amount": 0,
            "receipt_number": None,
            "rendering": None,
            "shipping_cost": None,
            "shipping_details": None,
            "starting_balance": self.starting_balance,
            "statement_descriptor": None,
            "status": self.status,
            "status_transitions": {
                "finalized_at": self.finalized_at,
                "marked_uncollectible_at": self.uncollectible_at,
                "paid_at": self.paid_at,
                "voided_at": self.voided_at,
            },
            "subtotal": self.subtotal,
            "subtotal_excluding_tax": self.subtotal,
            "test_clock": None,
            "total": self.total,
            "total_discount_amounts": [self.discounted(self.off)] if self.off else [],
            "total_excluding_tax": self.total - self.tax,
            "total_pretax_credit_amounts": [],
            "webhooks_delivered_at": self.created,
        }
        return invoice | (self._once(livemode=livemode) if shape == "legacy" else self._now())

    def _once(self, *, livemode: bool) -> StripeObject:
        return {
            "application_fee_amount": None,
            "charge": self.charge,
            "discount": self.discount.render("legacy", livemode=livemode) if self.discount else None,
            "paid": self.status == "paid",
            "paid_out_of_band": self.off_stripe,
            "payment_intent": self.payment_intent,
            "quote": None,
            "subscription": self.subscription,
            "subscription_details": {"metadata": dict(self.subscription_metadata) if self.subscription else None},
            "tax": self.tax or None,
            "total_tax_amounts": [_tax_once(self.tax, self.subtotal - self.off)] if self.tax else [],
            "transfer_data": None,
        }

    def _now(self) -> StripeObject:
        details = {"metadata": dict(self.subscription_metadata), "subscription": self.subscription}
        uncollectible = {"uncollectible": {"reason": "max_payment_attempts"}} if self.uncollectible_at else None
        return {
            "amount_overpaid": 0,
            "amount_paid_off_stripe": self.amount_due if self.off_stripe else 0,
            "customer_account": None,
            "parent": {"quote_details": None, "subscription_details": details, "type": "subscription_details"}
            if self.subscription
            else None,
            "status_details": uncollectible,
            "total_taxes": [_tax_now(self.tax, self.subtotal - self.off)] if self.tax else [],
        }


class InvoicePayment(msgspec.Struct, kw_only=True):
    """`invoice_payment`: which payment intent paid which invoice; API versions since 2025-03-31 only."""

    id: str = "inpay_1Pgc6tB7WZ01zgkWu9fdqL6I"
    invoice: str = "in_1Pgc6tB7WZ01zgkWu9fdqL6I"
    payment_intent: str = "pi_3PgafyB7WZ01zgkWSjxsAJo3"
    amount: int = 2900
    currency: str = "usd"
    created: int = 1_769_904_000
    paid_at: int | None = None

    def render(self, shape: Shape, *, livemode: bool) -> StripeObject:
        if shape == "legacy":
            raise ValueError("Stripe had no invoice payments before 2025-03-31.basil")
        return {
            "id": self.id,
            "object": "invoice_payment",
            "amount_paid": None if self.paid_at is None else self.amount,
            "amount_requested": self.amount,
            "created": self.created,
            "currency": self.currency,
            "invoice": self.invoice,
            "is_default": True,
            "livemode": livemode,
            "payment": {"payment_intent": self.payment_intent, "type": "payment_intent"},
            "status": "open" if self.paid_at is None else "paid",
            "status_transitions": {"canceled_at": None, "paid_at": self.paid_at},
        }


def _tax_once(amount: int, taxable: int) -> StripeObject:
    return {"amount": amount, "inclusive": False, "tax_rate": TAX_RATE, "taxability_reason": "standard_rated", "taxable_amount": taxable}


def _tax_now(amount: int, taxable: int) -> StripeObject:
    return {
        "amount": amount,
        "tax_behavior": "exclusive",
        "tax_rate_details": {"tax_rate": TAX_RATE},
        "taxability_reason": "standard_rated",
        "taxable_amount": taxable,
        "type": "tax_rate_details",
    }
