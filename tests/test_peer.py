"""The peer beside us has the tables that we have, so that its figures can be compared."""

from __future__ import annotations

import ast
from pathlib import Path

from billingwatch.postgres.tenant_plane import metadata

MODELS = Path(__file__).parents[1] / "scripts" / "peer_django_tenants" / "fleet" / "models.py"


def tables_of_the_peer() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for model in ast.parse(MODELS.read_text(encoding="utf-8")).body:
        if not isinstance(model, ast.ClassDef):
            continue
        [meta] = [part for part in model.body if isinstance(part, ast.ClassDef)]
        values = {target.id: part.value for part in meta.body if isinstance(part, ast.Assign) for target in part.targets}
        columns = {target.id for part in model.body if isinstance(part, ast.Assign) for target in part.targets}
        found[ast.literal_eval(values["db_table"])] = columns - {"pk"}
    return found


def test_the_peer_has_our_tables_with_our_columns():
    assert tables_of_the_peer() == {table.name: {column.name for column in table.columns} for table in metadata.sorted_tables}
