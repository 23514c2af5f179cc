"""pre: `events` without CHECKs, which every INSERT reads anew; who records checks instead. Locks the table for a moment."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint(op.f("events_disposition_known"), "events", type_="check")
    op.drop_constraint(op.f("events_deliveries_positive"), "events", type_="check")


def downgrade() -> None:
    op.create_check_constraint(op.f("events_disposition_known"), "events", "disposition IN ('process', 'ignored', 'needs_fetch')")
    op.create_check_constraint(op.f("events_deliveries_positive"), "events", "deliveries > 0")
