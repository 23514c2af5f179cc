"""`payment_intent` and the `charge` of each attempt on it."""

from __future__ import annotations

import msgspec

from billingwatch.simulate.objects.declines import Decline, outcome
from billingwatch.simulate.objects.payers import Payer
from billingwatch.simulate.objects.shapes import Shape, StripeObject

DISABLED = {"status": "disabled"}
UNAVAILABLE = {"status": "unavailable"}


class PaymentIntent(msgspec.Struct, kw_only=True):
    """`payment_intent`: one wish to be paid; every attempt on it is a charge."""

    id: str = "pi_3PgafyB7WZ01zgkWSjxsAJo3"
    amount: int = 2000
    currency: str = "usd"
    created: int = 1_767_225_600
    payer: Payer = Payer()
    status: str = "requires_payment_method"
    invoice: str | None = None
    description: str | None = None
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    latest_charge: str | None = None
    decline: Decline | None = None

    def render(self, shape: Shape, *, livemode: bool) -> StripeObject:
        """Give the payment intent as Stripe would send it."""
        succeeded = self.status == "succeeded"
        intent: StripeObject = {
            "id": self.id,
            "object": "payment_intent",
            "amount": self.amount,
            "amount_capturable": 0,
            "amount_details": {"tip": {}},
            "amount_received": self.amount if succeeded else 0,
            "application": None,
            "application_fee_amount": None,
            "automatic_payment_methods": None,
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": "automatic",
            "client_secret": f"{self.id}_secret_{self.id[::-1][:24]}",
            "confirmation_method": "automatic",
            "created": self.created,
            "currency": self.currency,
            "customer": self.payer.customer,
            "description": self.description,
            "last_payment_error": self._error(shape, livemode=livemode),
            "latest_charge": self.latest_charge,
            "livemode": livemode,
            "metadata": dict(self.metadata),
            "next_action": {"type": "use_stripe_sdk", "use_stripe_sdk": {}} if self.status == "requires_action" else None,
            "on_behalf_of": None,
            "payment_method": None if self.status == "requires_payment_method" else self.payer.card.payment_method,
            "payment_method_configuration_details": None,
            "payment_method_options": {
                "card": {"installments": None, "mandate_options": None, "network": None, "request_three_d_secure": "automatic"}
            },
            "payment_method_types": ["card"],
            "processing": None,
            "receipt_email": None,
            "review": None,
            "setup_future_usage": "off_session" if self.invoice else None,
            "shipping": None,
            "source": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": None,
            "status": self.status,
            "transfer_data": None,
            "transfer_group": None,
        }
        if shape == "legacy":
            intent["invoice"] = self.invoice
        else:
            intent |= {"customer_account": None, "excluded_payment_method_types": None, "managed_payments": {"enabled": False}}
        return intent

    def _error(self, shape: Shape, *, livemode: bool) -> StripeObject | None:
        if self.decline is None:
            return None
        method = {"id": self.payer.card.payment_method, "object": "payment_method", "livemode": livemode, "type": "card"}
        return {
            "charge": self.latest_charge,
            "code": self.decline.code,
            "decline_code": self.decline.reason,
            "doc_url": f"https://stripe.com/docs/error-codes/{self.decline.code.replace('_', '-')}",
            "message": self.decline.message,
            "payment_method": {**method, "billing_details": self.payer.billing_details(shape), "customer": self.payer.customer},
            "type": "card_error",
        }


class Charge(msgspec.Struct, kw_only=True):
    """`charge`: one attempt at a payment, succeeded unless there is a decline."""

    id: str = "ch_3PgafuB7WZ01zgkWXYmPNZs8"
    amount: int = 2000
    currency: str = "usd"
    created: int = 1_767_225_600
    payer: Payer = Payer()
    payment_intent: str | None = "pi_3PgafyB7WZ01zgkWSjxsAJo3"
    invoice: str | None = None
    description: str | None = None
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    decline: Decline | None = None
    risk_score: int = 22
    """0 to 99."""
    amount_refunded: int = 0
    disputed: bool = False

    def render(self, shape: Shape, *, livemode: bool) -> StripeObject:
        """Give the charge as Stripe would send it."""
        paid = self.decline is None
        charge: StripeObject = {
            "id": self.id,
            "object": "charge",
            "amount": self.amount,
            "amount_captured": self.amount if paid else 0,
            "amount_refunded": self.amount_refunded,
            "application": None,
            "application_fee": None,
            "application_fee_amount": None,
            "balance_transaction": f"txn_{self.id[3:]}" if paid else None,
            "billing_details": self.payer.billing_details(shape),
            "calculated_statement_descriptor": "EXAMPLE* COMPANY",
            "captured": paid,
            "created": self.created,
            "currency": self.currency,
            "customer": self.payer.customer,
            "description": self.description,
            "destination": None,
            "dispute": None,
            "disputed": self.disputed,
            "failure_balance_transaction": None,
            "failure_code": self.decline.code if self.decline else None,
            "failure_message": self.decline.message if self.decline else None,
            "fraud_details": {},
            "livemode": livemode,
            "metadata": dict(self.metadata),
            "on_behalf_of": None,
            "order": None,
            "outcome": outcome(self.decline, self.risk_score, shape),
            "paid": paid,
            "payment_intent": self.payment_intent,
            "payment_method": self.payer.card.payment_method,
            "payment_method_details": {"card": self._card(shape), "type": "card"},
            "radar_options": {},
            "receipt_email": self.payer.email,
            "receipt_number": None,
            "receipt_url": self._receipt_url() if paid else None,
            "refunded": 0 < self.amount == self.amount_refunded,
            "review": None,
            "shipping": None,
            "source": None,
            "source_transfer": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": None,
            "status": "succeeded" if paid else "failed",
            "transfer_data": None,
            "transfer_group": None,
        }
        if shape == "legacy":
            charge["invoice"] = self.invoice
        else:
            charge["presentment_details"] = None
        return charge

    def _receipt_url(self) -> str:
        account, receipt = self.id[9:19], self.id[::-1]
        return (
            f"https://pay.stripe.com/receipts/payment/CAcaFwoVYWNjdF8x{account}KOXXk70GMgb{receipt}6LBYq{receipt}LHd{receipt}Uk{receipt}WnQ"
        )

    def _card(self, shape: Shape) -> StripeObject:
        card, paid = self.payer.card, self.decline is None
        digits = sum(map(ord, self.id)) * 48_271
        details: StripeObject = {
            "amount_authorized": self.amount if paid else None,
            "authorization_code": f"{digits:06d}"[-6:] if paid else None,
            "brand": card.brand,
            "checks": {
                "address_line1_check": "pass",
                "address_postal_code_check": "pass",
                "cvc_check": "fail" if self.decline and self.decline.code == "incorrect_cvc" else None if self.invoice else "pass",
            },
            "country": card.country,
            "exp_month": card.exp_month,
            "exp_year": card.exp_year,
            "extended_authorization": DISABLED,
            "fingerprint": card.fingerprint,
            "funding": card.funding,
            "incremental_authorization": UNAVAILABLE,
            "installments": None,
            "last4": card.last4,
            "mandate": None,
            "multicapture": UNAVAILABLE,
            "network": card.brand,
            "network_token": {"used": False},
            "overcapture": {"maximum_amount_capturable": self.amount if paid else 0, "status": "unavailable"},
            "three_d_secure": None,
            "wallet": None,
        }
        if shape == "current":
            details |= {"network_transaction_id": f"7{digits:014d}", "regulated_status": "unregulated"}
        return details


class Refund(msgspec.Struct, kw_only=True):
    """`refund`: money given back, in full or in part."""

    id: str = "re_3PgafuB7WZ01zgkWqPvrRrPE"
    amount: int = 2000
    currency: str = "usd"
    created: int = 1_767_225_600
    charge: str = "ch_3PgafuB7WZ01zgkWXYmPNZs8"
    payment_intent: str | None = "pi_3PgafyB7WZ01zgkWSjxsAJo3"
    payer: Payer = Payer()
    reason: str | None = "requested_by_customer"
    status: str = "succeeded"

    def render(self, shape: Shape, *, livemode: bool) -> StripeObject:  # noqa: ARG002 - a refund does not tell its mode
        """Give the refund as Stripe would send it."""
        refund: StripeObject = {
            "id": self.id,
            "object": "refund",
            "amount": self.amount,
            "balance_transaction": f"txn_{self.id[3:]}",
            "charge": self.charge,
            "created": self.created,
            "currency": self.currency,
            "destination_details": {
                "card": {"reference_status": "pending", "reference_type": "acquirer_reference_number", "type": "refund"},
                "type": "card",
            },
            "metadata": {},
            "payment_intent": self.payment_intent,
            "reason": self.reason,
            "receipt_number": None,
            "source_transfer_reversal": None,
            "status": self.status,
            "transfer_reversal": None,
        }
        if shape == "current":
            refund |= {"customer": self.payer.customer, "customer_account": None, "payment_method": self.payer.card.payment_method}
        return refund
