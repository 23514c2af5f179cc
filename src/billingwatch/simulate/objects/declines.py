"""Why a payment is refused, as issuers, networks and Radar put it."""

from __future__ import annotations

import msgspec

from billingwatch.simulate.objects.shapes import Shape, StripeObject

RISK_ELEVATED = 65  # Radar's score from which a payment counts as of elevated risk
RISK_HIGHEST = 75


class Decline(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which a payment fails."""

    reason: str
    """Stripe's decline code."""
    message: str
    code: str = "card_declined"
    outcome: str = "issuer_declined"
    network_status: str = "declined_by_network"
    network_code: str | None = None
    advice: str | None = "try_again_later"

    @property
    def blocked(self) -> bool:
        """Tell whether Radar refused it before any bank saw it."""
        return self.outcome == "blocked"


INSUFFICIENT_FUNDS = Decline(reason="insufficient_funds", message="Your card has insufficient funds.", network_code="51")
DO_NOT_HONOR = Decline(reason="do_not_honor", message="Your card was declined.", network_code="05")
GENERIC = Decline(reason="generic_decline", message="Your card was declined.", network_code="57")
TRY_AGAIN_LATER = Decline(reason="try_again_later", message="Your card was declined.", network_code="91")
ISSUER_UNAVAILABLE = Decline(reason="issuer_not_available", message="Your card was declined.", network_code="91")
PROCESSING_ERROR = Decline(
    reason="processing_error",
    message="An error occurred while processing your card. Try again in a little bit.",
    code="processing_error",
    outcome="issuer_declined",
    network_code="96",
)
EXPIRED = Decline(
    reason="expired_card", message="Your card has expired.", code="expired_card", network_code="54", advice="confirm_card_data"
)
INCORRECT_CVC = Decline(
    reason="incorrect_cvc",
    message="Your card's security code is incorrect.",
    code="incorrect_cvc",
    network_code="N7",
    advice="confirm_card_data",
)
INCORRECT_NUMBER = Decline(
    reason="incorrect_number",
    message="Your card number is incorrect.",
    code="incorrect_number",
    network_code="14",
    advice="confirm_card_data",
)
NOT_ALLOWED = Decline(
    reason="transaction_not_allowed",
    message="Your card does not support this type of purchase.",
    network_code="57",
    advice="do_not_try_again",
)
VELOCITY = Decline(
    reason="card_velocity_exceeded", message="Your card was declined for making repeated attempts too frequently.", network_code="65"
)
LOST = Decline(reason="lost_card", message="Your card was declined.", network_code="41", advice="do_not_try_again")
STOLEN = Decline(reason="stolen_card", message="Your card was declined.", network_code="43", advice="do_not_try_again")
BLOCKED = Decline(
    reason="fraudulent",
    message="Your card was declined.",
    outcome="blocked",
    network_status="not_sent_to_network",
    advice="do_not_try_again",
)

# What an ordinary day's declines are made of: decline and weight.
EVERYDAY: tuple[tuple[Decline, int], ...] = (
    (INSUFFICIENT_FUNDS, 42),
    (DO_NOT_HONOR, 16),
    (GENERIC, 14),
    (EXPIRED, 7),
    (INCORRECT_CVC, 6),
    (NOT_ALLOWED, 5),
    (VELOCITY, 3),
    (TRY_AGAIN_LATER, 2),
    (PROCESSING_ERROR, 1),
    (LOST, 1),
    (STOLEN, 1),
    (BLOCKED, 2),
)
ISSUER_OUTAGE: tuple[tuple[Decline, int], ...] = ((ISSUER_UNAVAILABLE, 60), (DO_NOT_HONOR, 25), (TRY_AGAIN_LATER, 15))
PROCESSOR_OUTAGE: tuple[tuple[Decline, int], ...] = ((PROCESSING_ERROR, 80), (TRY_AGAIN_LATER, 20))
# What a bank says of stolen numbers that somebody tries out.
TESTED: tuple[tuple[Decline, int], ...] = (
    (INCORRECT_CVC, 35),
    (DO_NOT_HONOR, 25),
    (INCORRECT_NUMBER, 15),
    (LOST, 10),
    (STOLEN, 10),
    (EXPIRED, 5),
)


def outcome(decline: Decline | None, risk_score: int, shape: Shape) -> StripeObject:
    """Give a charge's `outcome`."""
    risk_level = "highest" if risk_score >= RISK_HIGHEST else "elevated" if risk_score >= RISK_ELEVATED else "normal"
    result: StripeObject = {
        "network_status": "approved_by_network" if decline is None else decline.network_status,
        "reason": None,
        "risk_level": risk_level,
        "risk_score": risk_score,
        "seller_message": "Payment complete.",
        "type": "authorized",
    }
    if decline is not None:
        result["type"] = decline.outcome
        result["reason"] = "highest_risk_level" if decline.blocked else decline.reason
        result["seller_message"] = (
            "Stripe blocked this payment as too risky." if decline.blocked else f"The bank returned the decline code `{decline.reason}`."
        )
    if shape == "current":
        result["advice_code"] = decline.advice if decline else None
        result["network_advice_code"] = None
        result["network_decline_code"] = decline.network_code if decline else None
    return result
