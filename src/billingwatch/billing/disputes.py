"""Disputes, inquiries and early fraud warnings: somebody doubts a charge."""

from __future__ import annotations

from billingwatch.billing.events import Event
from billingwatch.billing.rows import Dispute, Row
from billingwatch.billing.shapes import Fields, currency, flag, identity, instant, reference, required, section, text, whole
from billingwatch.billing.versions import Stage, place, rank

STATES = (
    "warning_needs_response",
    "warning_under_review",
    "warning_closed",
    "needs_response",
    "under_review",
    "prevented",
    "charge_refunded",
    "lost",
    "won",
)
DECIDED = frozenset({"prevented", "charge_refunded", "lost", "won"})


def read_dispute(event: Event, dispute: Fields) -> list[Row]:
    """Read a dispute; while its status begins with `warning_` it is an inquiry, not a chargeback."""
    status = required(text(dispute, "status"), "status")
    return [
        Dispute(
            dispute_id=reference(dispute, "id") or required(reference(dispute, "charge"), "id"),  # disputes had no id at first
            kind="inquiry" if status.startswith("warning_") else "dispute",
            charge_id=reference(dispute, "charge"),
            payment_intent_id=reference(dispute, "payment_intent"),
            amount=whole(dispute, "amount"),
            currency=currency(dispute),
            reason=text(dispute, "reason"),
            status=status,
            actionable=None,
            # At the top level until 2014.
            evidence_due_at=instant(section(dispute, "evidence_details"), "due_by") or instant(dispute, "evidence_due_by"),
            **event.stamp(
                instant(dispute, "created"),
                stage=_stage(status),
                rank=rank(first=event.is_creation, state=place(status, STATES)),
            ),
        )
    ]


def read_early_fraud_warning(event: Event, warning: Fields) -> list[Row]:
    """Read an early fraud warning; it stops being actionable and never becomes so again."""
    actionable = flag(warning, "actionable")
    return [
        Dispute(
            dispute_id=identity(warning),
            kind="early_fraud_warning",
            charge_id=reference(warning, "charge"),
            payment_intent_id=reference(warning, "payment_intent"),
            amount=None,
            currency=None,
            reason=text(warning, "fraud_type"),
            status=None,
            actionable=actionable,
            evidence_due_at=None,
            **event.stamp(instant(warning, "created"), stage=Stage.LIVE, rank=rank(first=event.is_creation, state=0 if actionable else 1)),
        )
    ]


def _stage(status: str) -> Stage:
    if status.startswith("warning_"):
        return Stage.FINAL if status == "warning_closed" else Stage.LIVE
    return Stage.DECIDED if status in DECIDED else Stage.ESCALATED
