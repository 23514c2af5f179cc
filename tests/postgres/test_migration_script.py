"""`make migration` writes the revision that the table definitions ask for, as one written by hand would look."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import BigInteger, Column, Index, MetaData, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from billingwatch.postgres import control_plane, revisions, tenant_plane
from billingwatch.tenancy.fleet import migrate_fleet
from billingwatch.tenancy.fleet_plan import Options

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "migration.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("migration_script", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def changed(metadata: MetaData, table: str, *parts: Column | Index) -> MetaData:
    """The definitions with more in one table."""
    copy = MetaData(schema=metadata.schema, naming_convention=metadata.naming_convention)
    for each in metadata.sorted_tables:
        each.to_metadata(copy)
    for part in parts:
        (found,) = (each for each in copy.tables.values() if each.name == table)
        (found.append_constraint if isinstance(part, Index) else found.append_column)(part)
    return copy


@pytest.mark.schema_isolation
@pytest.mark.parametrize("plane", ["control", "tenant"])
async def test_a_revision_makes_the_schema_what_the_definitions_say_and_back(control, database, release, tenant, script, plane):
    column = Column("notes", JSONB, nullable=False, server_default=text("'{}'"))
    if plane == "tenant":
        metadata = changed(tenant_plane.metadata, "customers", column, Column("visits", BigInteger))
    else:
        metadata = changed(control_plane.metadata, "tenants", column, Column("plan", Text))

    changes = await script.compare(database, plane, metadata, tenant.schema_name)
    path = script.write(release.root, plane, changes, "Notes of a customer.", "pre")
    revisions.forget()
    outcome = await migrate_fleet(control, database, Options())
    after = await script.compare(database, plane, metadata, tenant.schema_name)

    assert outcome.failed == []
    assert after.up == after.back == ""
    words = path.read_text()
    assert path.name.endswith("_notes_of_a_customer.py")
    assert words.startswith(
        '"""pre: Notes of a customer."""\n\nfrom __future__ import annotations\n\nimport sqlalchemy as sa\nfrom alembic import op\n'
    )
    assert "from sqlalchemy.dialects import postgresql\n" in words
    assert "op.drop_column(" in words
    assert max(map(len, words.splitlines())) <= 140
    assert "sa.text('" not in words, "it is not formatted"


def test_without_a_difference_there_is_no_revision(tmp_path):
    before = set((ROOT / "schema").rglob("*.py"))

    done = subprocess.run(
        [sys.executable, SCRIPT, "tenant", "nothing new"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 1
    assert "nothing differs: change src/billingwatch/postgres/tenant_plane.py first" in done.stderr
    assert done.stdout == ""
    assert set((ROOT / "schema").rglob("*.py")) == before
