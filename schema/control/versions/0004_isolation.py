"""pre: how the database keeps its tenants apart. Adds a table, and replaces a unique constraint of tenants; safe while workers run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "isolation",
        sa.Column("kind", sa.Text(), nullable=False, comment="schema: one for each tenant; row: one for all, with row-level security"),
        sa.Column("schema_name", sa.Text(), nullable=True, comment="The one of all tenants, and the role that their scopes run as"),
        sa.Column("partitions", sa.Integer(), nullable=True, comment="Hash partitions of each table in it; 0: not partitioned"),
        sa.Column("revision", sa.Text(), nullable=True, comment="Revision of the tenant line that it is at"),
        sa.Column("views_digest", sa.Text(), nullable=True, comment="Digest of schema/views that it was given"),
        sa.CheckConstraint("kind IN ('schema', 'row')", name=op.f("isolation_kind_known")),
        sa.CheckConstraint(
            "CASE kind WHEN 'row' THEN num_nulls(schema_name, partitions, revision, views_digest) = 0"
            " ELSE num_nonnulls(schema_name, partitions, revision, views_digest) = 0 END",
            name=op.f("isolation_shared_is_whole"),
        ),
        sa.CheckConstraint("schema_name ~ '^tenants_[a-z2-7]{10}$'", name=op.f("isolation_schema_name_opaque")),
        sa.CheckConstraint("partitions >= 0", name=op.f("isolation_partitions_not_negative")),
        sa.PrimaryKeyConstraint("kind", name="isolation_pkey"),
        schema="control",
        comment="How this database keeps its tenants apart, since it was set up: one row",
    )
    op.create_index("isolation_single_idx", "isolation", [sa.text("(true)")], unique=True, schema="control")
    op.execute("INSERT INTO control.isolation (kind) VALUES ('schema')")
    op.create_index(
        "tenants_schema_name_idx",
        "tenants",
        ["schema_name"],
        unique=True,
        schema="control",
        postgresql_where=sa.text("starts_with(schema_name, 'tenant_')"),
    )
    op.drop_constraint("tenants_schema_name_key", "tenants", schema="control")
    op.drop_constraint("tenants_schema_name_opaque", "tenants", schema="control")
    op.create_check_constraint(op.f("tenants_schema_name_opaque"), "tenants", "schema_name ~ '^tenants?_[a-z2-7]{10}$'", schema="control")
    op.alter_column(
        "tenants",
        "schema_name",
        comment="Opaque: every Postgres role can read pg_namespace. tenants_…: shared by all",
        schema="control",
    )


def downgrade() -> None:
    op.execute(
        """
        DO $$
        BEGIN
            IF EXISTS (SELECT FROM control.isolation WHERE kind = 'row') THEN
                RAISE EXCEPTION 'this database keeps its tenants apart by row, which no earlier release knows';
            END IF;
        END
        $$
        """
    )
    op.alter_column("tenants", "schema_name", comment="Opaque: every Postgres role can read pg_namespace", schema="control")
    op.drop_constraint("tenants_schema_name_opaque", "tenants", schema="control")
    op.create_check_constraint(op.f("tenants_schema_name_opaque"), "tenants", "schema_name ~ '^tenant_[a-z2-7]{10}$'", schema="control")
    op.create_unique_constraint("tenants_schema_name_key", "tenants", ["schema_name"], schema="control")
    op.drop_index("tenants_schema_name_idx", "tenants", schema="control")
    op.drop_table("isolation", schema="control")
