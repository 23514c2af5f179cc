"""pre: which tenants could not be migrated, and why. Adds a table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "migration_failures",
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("wanted", sa.Text(), nullable=False, comment="The revision that the tenant did not reach"),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["control.tenants.tenant_id"], name=op.f("migration_failures_tenant_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", name="migration_failures_pkey"),
        schema="control",
        comment="Tenants whose last migration failed; gone once one succeeds",
    )


def downgrade() -> None:
    op.drop_table("migration_failures", schema="control")
