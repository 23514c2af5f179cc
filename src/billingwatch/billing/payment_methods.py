"""Payment methods, and the cards and sources that came before them."""

from __future__ import annotations

from billingwatch.billing.events import Event
from billingwatch.billing.rows import PaymentMethod, Row
from billingwatch.billing.shapes import SMALLINT_MAX, Fields, flag, identity, instant, reference, section, text, whole
from billingwatch.billing.versions import Stage, rank


def read_payment_method(event: Event, method: Fields) -> list[Row]:
    """Read a payment method or a source: its type names the section that describes it."""
    kind = text(method, "type")
    is_card = kind is not None and kind.startswith("card")
    return [_row(event, method, kind=kind, card=section(method, kind or "") if is_card else {})]


def read_card(event: Event, card: Fields) -> list[Row]:
    """Read a customer's card of the years before payment methods. A connected account's payout card is not ours to watch."""
    return [] if event.type.startswith("account.") else [_row(event, card, kind="card", card=card)]


def _row(event: Event, method: Fields, *, kind: str | None, card: Fields) -> PaymentMethod:
    # Once detached or deleted it can never be attached or used again.
    detached = event.type == "payment_method.detached" or event.is_deletion or bool(flag(method, "deleted"))
    return PaymentMethod(
        payment_method_id=identity(method),
        customer_id=None if detached else reference(method, "customer") or reference(method, "customer_account"),
        type=kind,
        card_brand=text(card, "brand") or (text(card, "type") if card.get("object") == "card" else None),  # `type` until 2014
        card_last4=text(card, "last4"),
        card_fingerprint=text(card, "fingerprint"),
        card_exp_month=whole(card, "exp_month", SMALLINT_MAX),
        card_exp_year=whole(card, "exp_year", SMALLINT_MAX),
        **event.stamp(
            instant(method, "created"),
            stage=Stage.FINAL if detached else Stage.LIVE,
            rank=rank(first=event.is_creation or event.type == "payment_method.attached", state=0),
        ),
    )
