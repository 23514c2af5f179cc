"""pre: bytes of bodies that json refuses, and what charges and refunds are worth.

Adds columns to `events`, `charges` and `refunds`, each null or with a constant default; locks each table for a moment.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("events", sa.Column("body", sa.LargeBinary(), nullable=True))
    op.add_column("charges", sa.Column("destination", sa.Text(), nullable=True))
    op.add_column("charges", sa.Column("amount_released", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("charges", sa.Column("refunds_failed", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("refunds", sa.Column("released", sa.Boolean(), server_default=sa.text("false"), nullable=False))


def downgrade() -> None:
    op.drop_column("refunds", "released")
    op.drop_column("charges", "refunds_failed")
    op.drop_column("charges", "amount_released")
    op.drop_column("charges", "destination")
    op.drop_column("events", "body")
