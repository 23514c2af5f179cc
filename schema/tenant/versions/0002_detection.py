"""pre: what the other detectors need. Adds a table and columns without a rewrite; safe while workers run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "states",
        sa.Column("object_id", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("event_id", sa.Text(collation="C"), nullable=False),
        sa.Column("facts", postgresql.JSONB(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('customer', 'first_charge', 'invoice', 'payment_method', 'subscription')", name=op.f("states_kind_known")
        ),
        sa.PrimaryKeyConstraint("object_id", "version", name="states_pkey"),
    )
    op.create_index("states_kind_created_at_idx", "states", ["kind", "created_at"], unique=False)
    op.add_column("anomalies", sa.Column("historical", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("invoices", sa.Column("discount_amount", sa.BigInteger(), nullable=True))
    op.add_column("invoices", sa.Column("tax_amount", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("invoices", "tax_amount")
    op.drop_column("invoices", "discount_amount")
    op.drop_column("anomalies", "historical")
    op.drop_table("states")
