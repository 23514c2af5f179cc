"""pre: how tenants tune their detectors, and when each was evaluated. Adds tables and a column without a rewrite."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _tenant_id(table: str) -> tuple[sa.Column[int], sa.ForeignKeyConstraint]:
    return (
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["control.tenants.tenant_id"], name=op.f(f"{table}_tenant_id_fkey"), ondelete="CASCADE"),
    )


def upgrade() -> None:
    op.add_column(
        "due_visits",
        sa.Column(
            "since",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="evaluate: up to when the detectors of time have judged; rejudge and history: from when on detectors evaluate again",
        ),
        schema="control",
    )
    op.execute(
        "COMMENT ON COLUMN control.due_visits.kind IS"
        " 'settle: anomalies that end when time passes; evaluate: detectors that judge time itself; rejudge:<detector>: one that failed; history: all, because rows arrived late'"
    )
    op.create_table(
        "detector_settings",
        *_tenant_id("detector_settings"),
        sa.Column("detector", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("thresholds", postgresql.JSONB(), nullable=False, comment="Those that differ from the detector's defaults"),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "detector", name="detector_settings_pkey"),
        schema="control",
    )
    op.create_table(
        "mutes",
        sa.Column("mute_id", sa.Integer(), sa.Identity(always=True), nullable=False),
        *_tenant_id("mutes"),
        sa.Column("detector", sa.Text(), nullable=True, comment="Null: all"),
        sa.Column("subject", sa.Text(), nullable=True, comment="Null: all"),
        sa.Column("since", sa.DateTime(timezone=True), nullable=True, comment="Bounds of opened_at; null: open"),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("until > since", name=op.f("mutes_until_after_since")),
        sa.PrimaryKeyConstraint("mute_id", name="mutes_pkey"),
        schema="control",
    )
    op.create_index("mutes_tenant_id_idx", "mutes", ["tenant_id"], unique=False, schema="control")
    op.create_table(
        "audit_log",
        sa.Column("audit_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        *_tenant_id("audit_log"),
        sa.Column("actor", sa.Text(), nullable=False, comment="operator, or the hint of an API key"),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(), nullable=False, comment="What it was, and what it is"),
        sa.Column("occurred_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("audit_id", name="audit_log_pkey"),
        schema="control",
        comment="Who changed what; only ever added to",
    )
    op.create_index("audit_log_tenant_id_audit_id_idx", "audit_log", ["tenant_id", "audit_id"], unique=False, schema="control")


def downgrade() -> None:
    op.drop_table("audit_log", schema="control")
    op.drop_table("mutes", schema="control")
    op.drop_table("detector_settings", schema="control")
    op.execute("COMMENT ON COLUMN control.due_visits.kind IS 'settle: anomalies that end when time passes'")
    op.drop_column("due_visits", "since", schema="control")
