from __future__ import annotations

from datetime import UTC, datetime

import pytest

from billingwatch.billing.readers import read_event
from billingwatch.billing.rows import Dispute

from .payloads import DAY, NOW, dispute, early_fraud_warning, event


def read(inside: object, kind: str = "charge.dispute.updated", **envelope: object) -> Dispute:
    (row,) = read_event(event(kind, inside, **envelope))
    assert isinstance(row, Dispute)
    return row


def test_a_dispute_is_read_whole_with_an_amount_of_its_own() -> None:
    row = read(dispute(amount=1500, currency="EUR"), "charge.dispute.created")

    assert (row.dispute_id, row.kind, row.charge_id, row.payment_intent_id) == ("dp_1", "dispute", "ch_1", "pi_1")
    assert (row.amount, row.currency, row.reason, row.status, row.actionable) == (1500, "eur", "fraudulent", "needs_response", None)
    assert row.evidence_due_at == datetime(2026, 1, 8, tzinfo=UTC)


def test_a_dispute_of_2013_is_read() -> None:
    row = read({"id": "dp_1", "object": "dispute", "status": "lost", "evidence_due_by": NOW + DAY, "evidence": "We sent it."})

    assert (row.status, row.evidence_due_at, row.charge_id) == ("lost", datetime(2026, 1, 2, tzinfo=UTC), None)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("warning_needs_response", "inquiry"),
        ("warning_under_review", "inquiry"),
        ("warning_closed", "inquiry"),
        ("needs_response", "dispute"),
        ("under_review", "dispute"),
        ("won", "dispute"),
        ("lost", "dispute"),
        ("prevented", "dispute"),
        ("a_status_of_2031", "dispute"),
    ],
)
def test_an_inquiry_is_no_chargeback(status: str, kind: str) -> None:
    assert read(dispute(status=status)).kind == kind


def test_an_early_fraud_warning_is_read_whole() -> None:
    row = read(early_fraud_warning(), "radar.early_fraud_warning.created")

    assert (row.dispute_id, row.kind, row.charge_id, row.payment_intent_id) == ("issfr_1", "early_fraud_warning", "ch_1", "pi_1")
    assert (row.reason, row.actionable, row.status, row.amount, row.currency) == ("unauthorized_use_of_card", True, None, None, None)


def test_within_a_second_a_warning_that_needs_no_action_is_the_newer() -> None:
    created = read(early_fraud_warning(), "radar.early_fraud_warning.created", event_id="evt_9")
    updated = read(early_fraud_warning(actionable=False), "radar.early_fraud_warning.updated", event_id="evt_1")

    assert updated.version > created.version


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("needs_response", "under_review"),
        ("warning_needs_response", "warning_under_review"),
        ("warning_under_review", "warning_closed"),
        ("warning_closed", "needs_response"),
        ("under_review", "won"),
        ("under_review", "lost"),
        ("needs_response", "prevented"),
    ],
)
def test_within_a_second_a_dispute_only_goes_forward(older: str, newer: str) -> None:
    assert read(dispute(status=newer), event_id="evt_1").version > read(dispute(status=older), event_id="evt_9").version


@pytest.mark.parametrize(
    ("final", "late"), [("won", "under_review"), ("lost", "needs_response"), ("warning_closed", "warning_under_review")]
)
def test_a_late_update_does_not_reopen_a_closed_dispute(final: str, late: str) -> None:
    assert read(dispute(status=final), created=NOW).version > read(dispute(status=late), created=NOW + DAY).version


def test_a_closed_inquiry_can_still_become_a_dispute() -> None:
    closed = read(dispute(status="warning_closed"), created=NOW)
    escalated = read(dispute(status="needs_response"), created=NOW + DAY)

    assert escalated.version > closed.version
