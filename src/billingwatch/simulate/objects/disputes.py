"""What cardholders and banks raise against a charge: `dispute` and `radar.early_fraud_warning`."""

from __future__ import annotations

import msgspec

from billingwatch.simulate.objects.shapes import Shape, StripeObject

EVIDENCE_FIELDS = (
    "access_activity_log",
    "billing_address",
    "cancellation_policy",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_communication",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "customer_signature",
    "duplicate_charge_documentation",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "product_description",
    "receipt",
    "refund_policy",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "service_documentation",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_documentation",
    "shipping_tracking_number",
    "uncategorized_file",
    "uncategorized_text",
)
NETWORK_REASONS = {"fraudulent": "10.4", "product_not_received": "13.1", "subscription_canceled": "13.2", "product_unacceptable": "13.3"}
EVIDENCE_WITHIN = 9 * 86_400  # seconds that a merchant has to answer
DISPUTE_FEE = 1500  # minor units


class Dispute(msgspec.Struct, kw_only=True):
    """`dispute`: a chargeback, or an inquiry while its status begins with `warning_`."""

    id: str = "du_1Pgc71B7WZ01zgkWMevJiAUx"
    amount: int = 2000
    currency: str = "usd"
    created: int = 1_767_225_600
    charge: str = "ch_3PgafuB7WZ01zgkWXYmPNZs8"
    payment_intent: str | None = "pi_3PgafyB7WZ01zgkWSjxsAJo3"
    reason: str = "fraudulent"
    status: str = "needs_response"
    brand: str = "visa"
    email: str = "jenny.rosen@example.com"

    @property
    def inquiry(self) -> bool:
        """Tell whether no money has moved."""
        return self.status.startswith("warning_")

    def render(self, shape: Shape, *, livemode: bool) -> StripeObject:
        """Give the dispute as Stripe would send it."""
        network_reason = NETWORK_REASONS.get(self.reason, "13.7")
        details: StripeObject = {"due_by": self.created + EVIDENCE_WITHIN, "has_evidence": False, "past_due": False, "submission_count": 0}
        dispute: StripeObject = {
            "id": self.id,
            "object": "dispute",
            "amount": self.amount,
            "balance_transaction": None if self.inquiry else f"txn_{self.id[3:]}",
            "balance_transactions": [] if self.inquiry else [self._withdrawal()],
            "charge": self.charge,
            "created": self.created,
            "currency": self.currency,
            "evidence": {**dict.fromkeys(EVIDENCE_FIELDS), "customer_email_address": self.email},
            "evidence_details": details,
            "is_charge_refundable": self.inquiry,
            "livemode": livemode,
            "metadata": {},
            "network_reason_code": network_reason,
            "payment_intent": self.payment_intent,
            "payment_method_details": {
                "card": {
                    "brand": self.brand,
                    "case_type": "inquiry" if self.inquiry else "chargeback",
                    "network_reason_code": network_reason,
                },
                "type": "card",
            },
            "reason": self.reason,
            "status": self.status,
        }
        if shape == "current":
            dispute |= {"enhanced_eligibility_types": [], "intended_submission_method": "manual"}
            dispute["evidence"]["enhanced_evidence"] = {}
            details["enhanced_eligibility"] = {}
        return dispute

    def _withdrawal(self) -> StripeObject:
        return {
            "id": f"txn_{self.id[3:]}",
            "object": "balance_transaction",
            "amount": -self.amount,
            "available_on": self.created + 2 * 86_400,
            "created": self.created,
            "currency": self.currency,
            "description": f"Chargeback withdrawal for {self.charge}",
            "exchange_rate": None,
            "fee": DISPUTE_FEE,
            "net": -self.amount - DISPUTE_FEE,
            "reporting_category": "dispute",
            "source": self.id,
            "status": "pending",
            "type": "adjustment",
        }


class EarlyFraudWarning(msgspec.Struct, kw_only=True):
    """`radar.early_fraud_warning`: a bank's word that a charge is probably fraud, before any dispute."""

    id: str = "issfr_1Pgc79B7WZ01zgkWxwDzEIPX"
    created: int = 1_767_225_600
    charge: str = "ch_3PgafuB7WZ01zgkWXYmPNZs8"
    payment_intent: str | None = "pi_3PgafyB7WZ01zgkWSjxsAJo3"
    fraud_type: str = "made_with_stolen_card"
    actionable: bool = True

    def render(self, shape: Shape, *, livemode: bool) -> StripeObject:  # noqa: ARG002 - the same in all API versions
        """Give the warning as Stripe would send it."""
        return {
            "id": self.id,
            "object": "radar.early_fraud_warning",
            "actionable": self.actionable,
            "charge": self.charge,
            "created": self.created,
            "fraud_type": self.fraud_type,
            "livemode": livemode,
            "payment_intent": self.payment_intent,
        }
