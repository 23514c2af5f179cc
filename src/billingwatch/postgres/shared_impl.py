"""Tables of all tenants in one schema, derived from the tenant line.

`tenant_id` comes first in every table, key and index, and row-level security keeps each role to what is its own. A revision is written once,
for a schema of one tenant; what it must do here follows from its operations, so it must not create tables or indexes in SQL text.
"""

from __future__ import annotations

import re
from io import StringIO
from typing import Any

from alembic.ddl.postgresql import PostgresqlImpl
from alembic.operations.ops import CreateIndexOp, CreatePrimaryKeyOp, CreateTableOp, CreateUniqueConstraintOp
from alembic.runtime.migration import MigrationContext
from sqlalchemy import CheckConstraint, Column, Constraint, Index, Integer, PrimaryKeyConstraint, Table, UniqueConstraint, text

from billingwatch.postgres.shared_plane import SharedPlane

CURRENT_TENANT = "nullif(current_setting('billingwatch.tenant', true), '')::integer"

# Policies. `tenant`: inside a scope. `analyst`: read by the owner of the analysts' views, for the role that uses the view; a setting
# would not do, because every role may set any setting. `operator`: the tables' owner, who
# otherwise sees nothing either, for what concerns all tenants: backfills of a migration, reports, exports.
SECURE = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {table} TO {scope} USING (tenant_id = {current_tenant});
CREATE POLICY analyst ON {table} FOR SELECT TO {reader} USING (tenant_id = (SELECT control.tenant_of_analyst(current_user)));
CREATE POLICY operator ON {table} TO CURRENT_USER USING (current_setting('billingwatch.operator', true) = 'on');
GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {scope};
"""
PARTITION = """
CREATE TABLE {table}_{number} PARTITION OF {table} FOR VALUES WITH (MODULUS {count}, REMAINDER {number});
ALTER TABLE {table}_{number} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
"""


# A statement about rows means one tenant's, so it runs once for each of them, in the tenant's scope.
FOR_EACH_TENANT = """
DO $each$
DECLARE
    one integer;
BEGIN
    FOR one IN SELECT tenant_id FROM control.tenants LOOP
        PERFORM set_config('billingwatch.tenant', one::text, true), set_config('role', '{scope}', true);
        EXECUTE $statement${statement}$statement$;
        PERFORM set_config('role', 'none', true);
    END LOOP;
    PERFORM set_config('billingwatch.tenant', '', true);
END
$each$
"""
_ABOUT_ROWS = re.compile(r"\s*(insert|update|delete|merge|with)\b", re.IGNORECASE)


class SharedImpl(PostgresqlImpl):
    """Alembic's operations on PostgreSQL, for tables that all tenants share."""

    def __init__(self, context: MigrationContext, plane: SharedPlane, buffer: StringIO, options: dict[str, Any]) -> None:
        super().__init__(context.dialect, None, as_sql=True, transactional_ddl=True, output_buffer=buffer, context_opts=options)
        self._plane = plane

    def create_table(self, table: Table, **options: Any) -> None:  # noqa: ANN401 - Alembic's signature
        if any(column.unique or column.index for column in table.columns):
            message = f"{table.name}: name its indexes and unique constraints, each in an operation of its own"
            raise ValueError(message)
        super().create_table(self._shared(table), **options)
        plane = self._plane
        self.static_output(SECURE.format(table=table.name, scope=plane.scope_role, reader=plane.reader_role, current_tenant=CURRENT_TENANT))
        for number in range(plane.partitions):
            self.static_output(PARTITION.format(table=table.name, number=number, count=plane.partitions))

    def execute(self, sql: Any, execution_options: Any = None) -> None:  # noqa: ANN401 - Alembic's signature
        statement = str(sql)
        if _ABOUT_ROWS.match(statement):
            self.static_output(FOR_EACH_TENANT.format(scope=self._plane.scope_role, statement=statement) + ";")
            return
        super().execute(sql, execution_options)

    def create_index(self, index: Index, **options: Any) -> None:  # noqa: ANN401 - Alembic's signature
        super().create_index(_shared_index(index), **options)

    def add_constraint(self, const: Any, **options: Any) -> None:  # noqa: ANN401 - Alembic's signature
        super().add_constraint(_shared_constraint(const), **options)

    def _shared(self, table: Table) -> Table:
        keyed = bool(table.primary_key.columns)
        tenant_id: Column[int] = Column(
            "tenant_id", Integer, nullable=False, server_default=text(CURRENT_TENANT), primary_key=keyed, autoincrement=False
        )
        options: dict[str, Any] = dict(table.kwargs)
        if self._plane.partitions:
            options["postgresql_partition_by"] = "HASH (tenant_id)"
        constraints = sorted(table.constraints, key=lambda constraint: str(constraint.name))
        return CreateTableOp(
            table.name,
            [tenant_id, *table.columns, *(_shared_constraint(constraint) for constraint in constraints)],
            comment=table.comment,
            **options,
        ).to_table()


def _shared_constraint(constraint: Constraint) -> Constraint:
    if isinstance(constraint, CheckConstraint):
        return constraint
    if not isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint) or constraint.table is None:
        message = f"{constraint.name}: what it means for tables that tenants share is not known"
        raise ValueError(message)
    columns = ["tenant_id", *(column.name for column in constraint.columns)]
    kind = CreatePrimaryKeyOp if isinstance(constraint, PrimaryKeyConstraint) else CreateUniqueConstraintOp
    options = {name: value for name in ("deferrable", "initially") if (value := getattr(constraint, name)) is not None}
    return kind(str(constraint.name), constraint.table.name, columns, **options, **dict(constraint.kwargs)).to_constraint()


def _shared_index(index: Index) -> Index:
    if index.table is None or index.dialect_kwargs.get("postgresql_using", "btree") not in {"", "btree", False}:
        message = f"{index.name}: only a B-tree can have tenant_id in front"
        raise ValueError(message)
    columns = [element.name if isinstance(element, Column) else element for element in index.expressions]
    return CreateIndexOp(index.name, index.table.name, ["tenant_id", *columns], unique=index.unique, **dict(index.kwargs)).to_index()
