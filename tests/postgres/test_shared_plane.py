"""What a revision may ask for is derived for shared tables, or refused; nothing slips through without a tenant in front."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from billingwatch.postgres.shared_impl import SharedImpl
from billingwatch.postgres.shared_plane import SharedPlane

KEY = (sa.Column("name", sa.Text(), nullable=False), sa.PrimaryKeyConstraint("name", name="things_pkey"))


def derived(revise: Callable[[Operations], object], *, partitions: int = 0) -> str:
    buffer = io.StringIO()
    options = {"as_sql": True, "output_buffer": buffer, "literal_binds": True}
    context = MigrationContext.configure(dialect_name="postgresql", opts=options)
    context.impl = SharedImpl(context, SharedPlane(schema_name="tenants_aaaaaaaaaa", partitions=partitions), buffer, options)
    with Operations.context(context) as op:
        revise(op)
    return " ".join(buffer.getvalue().split())


@pytest.mark.parametrize(
    ("revise", "expected"),
    [
        (lambda op: op.create_index("things_name_idx", "things", ["name"], unique=True), "CREATE UNIQUE INDEX things_name_idx ON things (tenant_id, name)"),
        (
            lambda op: op.create_index("things_name_idx", "things", [sa.text("name DESC")], postgresql_include=["size"]),
            "CREATE INDEX things_name_idx ON things (tenant_id, name DESC) INCLUDE (size)",
        ),
        (
            lambda op: op.create_unique_constraint("things_name_key", "things", ["name"], deferrable=True),
            "ALTER TABLE things ADD CONSTRAINT things_name_key UNIQUE (tenant_id, name) DEFERRABLE",
        ),
        (
            lambda op: op.create_primary_key("things_pkey", "things", ["name"]),
            "ALTER TABLE things ADD CONSTRAINT things_pkey PRIMARY KEY (tenant_id, name)",
        ),
        (
            lambda op: op.create_check_constraint("things_size_positive", "things", "size > 0"),
            "ALTER TABLE things ADD CONSTRAINT things_size_positive CHECK (size > 0)",
        ),
        (lambda op: op.drop_index("things_name_idx", "things"), "DROP INDEX things_name_idx"),
        (lambda op: op.add_column("things", sa.Column("size", sa.Integer())), "ALTER TABLE things ADD COLUMN size INTEGER"),
    ],
    ids=["unique index", "index on an expression", "unique constraint", "primary key", "check", "dropped index", "column"],
)  # fmt: skip
def test_a_key_or_an_index_gets_the_tenant_in_front_and_what_is_neither_stays(revise, expected):
    assert derived(revise).startswith(expected)


def test_a_table_is_guarded_and_partitioned_where_it_is_made():
    text = derived(lambda op: op.create_table("things", *KEY), partitions=2)

    assert "CONSTRAINT things_pkey PRIMARY KEY (tenant_id, name) ) PARTITION BY HASH (tenant_id);" in text
    assert "ALTER TABLE things ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;" in text
    assert text.count("PARTITION OF things FOR VALUES WITH (MODULUS 2, REMAINDER") == 2


@pytest.mark.parametrize(
    "revise",
    [
        lambda op: op.create_table("things", *KEY, sa.Column("code", sa.Text(), unique=True)),
        lambda op: op.create_table("things", *KEY, sa.Column("code", sa.Text(), index=True)),
        lambda op: op.create_foreign_key("things_name_fkey", "things", "others", ["name"], ["name"]),
        lambda op: op.create_index("things_tags_idx", "things", ["tags"], postgresql_using="gin"),
    ],
    ids=["a unique column", "an indexed column", "a foreign key", "an index that is no B-tree"],
)
def test_what_cannot_be_derived_is_refused(revise):
    with pytest.raises(ValueError, match="things"):
        derived(revise)
