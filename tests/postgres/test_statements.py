"""Named SQL: how a file is read, and what every statement of ours keeps to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import billingwatch
from billingwatch.postgres import control_plane, migrations, tenant_plane
from billingwatch.postgres.statements import load_statements

SOURCES = Path(billingwatch.__file__).parent
# The lab measures in a database of its own, beside the product's tables.
FILES = sorted(path for path in SOURCES.rglob("*.sql") if "lab" not in path.relative_to(SOURCES).parts)
STATEMENTS = {f"{path.relative_to(SOURCES)}:{name}": text for path in FILES for name, text in load_statements(str(path), path.name).items()}
VIEWS = {f"views/{name}": text for name, text in migrations.views().items()}
COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
LITERAL = re.compile(r"'(?:[^']|'')*'")
STAR = re.compile(r"(?:\bSELECT\s+(?:DISTINCT\s+)?|,\s*)(?:\w+\.)?\*|\bRETURNING\s+\*", re.IGNORECASE)
NAMED = re.compile(r"\b(?:INTO|UPDATE)\s+(\w+(?:\.\w+)?)|\b(?:FROM|JOIN)\s+(\w+(?:\.\w+)?)\b(?!\s*[.(])", re.IGNORECASE)
WITH = re.compile(r"\b(\w+)\s*(?:\([^()]*\)\s*)?AS\s+(?:NOT\s+)?(?:MATERIALIZED\s+)?\(", re.IGNORECASE)
OF_NO_TABLE = re.compile(r"(?<=\bextract\()\w+ FROM|\bIS (?:NOT )?DISTINCT FROM\b", re.IGNORECASE)
KEYWORDS = {"set", "skip", "nowait", "lateral", "of"}  # FOR UPDATE SKIP LOCKED, DO UPDATE SET, FROM LATERAL


def bare(text: str) -> str:
    """SQL without comments and literals, and without FROMs that name no table."""
    return OF_NO_TABLE.sub("", LITERAL.sub("''", COMMENT.sub(" ", text)))


def named_tables(text: str) -> set[str]:
    """What stands behind FROM, JOIN, INTO and UPDATE, without the statement's own WITH names."""
    text = bare(text)
    return {"".join(table).lower() for table in NAMED.findall(text)} - {name.lower() for name in WITH.findall(text)} - KEYWORDS


@pytest.fixture
def statements_of(tmp_path):
    def read(text: str):
        (tmp_path / "store.sql").write_text(text, encoding="utf-8")
        return load_statements(str(tmp_path / "store.py"), "store.sql")

    return read


def test_statements_are_read_by_their_names_without_what_explains_them(statements_of):
    sql = statements_of("-- one --\n-- Why it is so.\n-- At length.\nSELECT 1;\n\n-- two --\nSELECT 2 -- inside\nFROM t;\n")

    assert dict(sql) == {"one": "SELECT 1", "two": "SELECT 2 -- inside\nFROM t"}


def test_what_stands_before_the_first_name_belongs_to_nobody(statements_of):
    sql = statements_of("-- A file of statements.\nSELECT 0;\n-- one --\nSELECT 'ä';\n")

    assert dict(sql) == {"one": "SELECT 'ä'"}


def test_a_line_that_only_looks_like_a_name_stays_in_its_statement(statements_of):
    sql = statements_of("-- one --\nSELECT 1\n-- not a name here --\n-- Two --\n + 2;\n")

    assert list(sql) == ["one"]
    assert sql["one"].endswith("+ 2")


def test_a_name_given_twice_is_refused(statements_of):
    with pytest.raises(ValueError, match="twice"):
        statements_of("-- one --\nSELECT 1;\n-- one --\nSELECT 2;\n")


def test_statements_cannot_be_changed_and_a_missing_one_is_an_error(statements_of):
    sql = statements_of("-- one --\nSELECT 1;\n")

    with pytest.raises(TypeError):
        sql["one"] = "SELECT 2"
    with pytest.raises(KeyError):
        sql["two"]


def test_every_file_is_named_statement_by_statement():
    assert len(FILES) > 5
    for path in FILES:
        assert load_statements(str(path), path.name), f"{path} has no named statement"
        assert path.read_text(encoding="utf-8").startswith("-- "), f"{path} does not begin with a name"


def test_no_statement_selects_a_star():
    starred = [name for name, text in (STATEMENTS | VIEWS).items() if STAR.search(bare(text))]

    assert starred == [], "list the columns: a star changes its meaning with the next migration"


def test_tables_of_the_control_plane_are_qualified():
    tables = {table.name for table in control_plane.metadata.tables.values()}

    unqualified = [name for name, text in STATEMENTS.items() if tables & named_tables(text)]

    assert unqualified == [], "write control.<table>: outside a scope nothing is on the path"


def test_tables_of_a_tenant_are_found_through_the_path_alone():
    ours = {"control", "pg_catalog", "information_schema"}

    qualified = {
        name: foreign
        for name, text in (STATEMENTS | VIEWS).items()
        if (foreign := {table for table in named_tables(text) if "." in table and table.split(".")[0] not in ours})
    }

    assert qualified == {}, "the text must be the same for every tenant: leave the schema out"


def test_a_view_reads_the_tenants_own_tables_alone():
    reaching = [
        name for name, text in VIEWS.items() if not named_tables(text) <= set(tenant_plane.metadata.tables) | set(migrations.views())
    ]

    assert VIEWS
    assert reaching == []
