"""What makes ten thousand schemas bearable: few relations in each, the same text for all, nothing that leads out of them."""

from __future__ import annotations

import re

import pytest

from billingwatch.postgres.migrations import render_upgrade, render_views
from billingwatch.postgres.tenant_plane import INDEXES_MAX, TABLES_MAX, metadata

LITERAL = re.compile(r"'(?:[^']|'')*'")
COMMENT = re.compile(r"--[^\n]*")


def rendered() -> str:
    return LITERAL.sub("''", COMMENT.sub("", render_upgrade("tenant")))


@pytest.mark.parametrize(("kind", "limit"), [("r", TABLES_MAX), ("i", INDEXES_MAX)])
async def test_a_tenants_schema_keeps_to_the_relation_budget(control, tenant, kind, limit):
    count = await control.fetchval(
        'SELECT count(*) FROM pg_class WHERE relnamespace = $1::text::regnamespace AND relkind = $2::text::"char"', tenant.schema_name, kind
    )

    assert 0 < count <= limit, "every backend caches every relation of every tenant it serves: merge, or drop one"


def test_the_budget_is_the_one_that_was_measured():
    assert (TABLES_MAX, INDEXES_MAX) == (12, 22)


@pytest.mark.schema_isolation
async def test_a_tenants_schema_holds_tables_indexes_and_views_alone(control, tenant):
    owned = {
        "sequences and other relations": "SELECT relname FROM pg_class WHERE relnamespace = $1::text::regnamespace AND relkind NOT IN ('r', 'i', 'v')",
        "functions": "SELECT proname FROM pg_proc WHERE pronamespace = $1::text::regnamespace",
        "types": "SELECT typname FROM pg_type WHERE typnamespace = $1::text::regnamespace AND typtype <> 'c' AND typcategory <> 'A'",
        "triggers": "SELECT tgname FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid WHERE c.relnamespace = $1::text::regnamespace",
        "foreign keys": "SELECT conname FROM pg_constraint WHERE connamespace = $1::text::regnamespace AND contype = 'f'",
        "policies": "SELECT polname FROM pg_policy JOIN pg_class AS c ON c.oid = polrelid WHERE c.relnamespace = $1::text::regnamespace",
    }

    found = {what: [row[0] for row in await control.fetch(query, tenant.schema_name)] for what, query in owned.items()}

    assert found == {what: [] for what in owned}


async def test_every_table_has_a_primary_key_named_after_it(control, tenant):
    rows = await control.fetch(
        "SELECT c.relname::text, o.conname::text FROM pg_class AS c LEFT JOIN pg_constraint AS o ON o.conrelid = c.oid AND o.contype = 'p'"
        " WHERE c.relnamespace = $1::text::regnamespace AND c.relkind = 'r'",
        tenant.schema_name,
    )

    assert dict(rows) == {table: f"{table}_pkey" for table in metadata.tables}


async def test_a_view_reads_nothing_outside_of_the_tenants_schema(control, tenant):
    outside = await control.fetch(
        """
        SELECT DISTINCT v.relname, used.relname
        FROM pg_class AS v
        JOIN pg_rewrite AS r ON r.ev_class = v.oid
        JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
        JOIN pg_class AS used ON used.oid = d.refobjid
        WHERE v.relnamespace = $1::text::regnamespace AND v.relkind = 'v' AND used.relnamespace <> v.relnamespace
        """,
        tenant.schema_name,
    )

    assert outside == []


def test_what_a_tenant_is_made_of_is_the_same_text_for_every_tenant():
    sql = rendered()

    assert re.findall(r"\b[a-z_]\w*\.[a-z_]\w*", sql) == [], "leave the schema out: the path says which it is"
    assert not re.search(r"\btenant_|search_path|alembic_version|%\(|\bBEGIN\b|\bCOMMIT\b", sql, re.IGNORECASE)


def test_what_a_tenant_is_made_of_lists_its_columns():
    for sql in (rendered(), LITERAL.sub("''", COMMENT.sub("", render_views()))):
        assert not re.search(r"SELECT\s+(\w+\.)?\*|,\s*\w+\.\*", sql, re.IGNORECASE)


def test_a_tenant_has_no_default_privileges_and_no_owner_of_its_own():
    assert not re.search(r"DEFAULT PRIVILEGES|OWNER TO|CREATE (SEQUENCE|TYPE|FUNCTION|TRIGGER|EXTENSION)|SERIAL", rendered(), re.IGNORECASE)
