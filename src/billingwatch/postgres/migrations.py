"""Migrations: Alembic revisions rendered to SQL text once, to be replayed over any number of schemas.

`schema/control` and `schema/tenant` are Alembic lines; `schema/views` holds the analysts' views, created after the last revision.

A revision may say `online = True` when it cannot be rendered: it reads data, or does what no transaction can (CREATE INDEX CONCURRENTLY).
Alembic then runs its `upgrade` and `downgrade` for each tenant, connected to that tenant's schema alone; since a run can die between such a
revision and its bookkeeping, both must bear being repeated. Its `upgrade_empty` is what a new schema gets instead, and can be rendered.
Like every revision it has `from alembic import op`: in its module that name becomes the tenant's own.

Alembic is imported when it is needed: it takes half a second and some megabytes, and a service or a command whose database is at head
needs to know the names of the revisions alone.
"""

from __future__ import annotations

import ast
import hashlib
import io
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from billingwatch.postgres.shared_plane import SharedPlane

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

Plane = Literal["control", "tenant"]

other_root: Path | None = None  # see revisions.schema_at


def schema_root() -> Path:
    """`schema/`: inside the package when installed from a wheel, beside `src/` in a checkout."""
    if other_root is not None:
        return other_root
    packaged = Path(__file__).parents[1] / "schema"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "schema"


@cache
def lineage(plane: Plane) -> tuple[str, ...]:
    """The names of a plane's revisions, oldest first."""
    after: dict[str | None, str] = {}
    for path in sorted((schema_root() / plane / "versions").glob("*.py")):
        names = _constants(path)
        if (before := names["down_revision"]) in after:
            message = f"{path} comes after revision {before}, as {after[before]} does"
            raise LookupError(message)
        after[before] = names["revision"] or ""
    line: list[str] = []
    while (following := after.get(line[-1] if line else None)) is not None:
        line.append(following)
    if not line:
        message = f"schema/{plane} has no revision"
        raise LookupError(message)
    return tuple(line)


def _constants(path: Path) -> dict[str, str | None]:
    return {
        target.id: node.value.value
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str | None)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def head(plane: Plane) -> str:
    """The newest revision of a plane's line."""
    return lineage(plane)[-1]


@cache
def render_upgrade(plane: Plane, revision: str | None = None, shared: SharedPlane | None = None) -> str:
    """SQL that takes a schema from `revision` (None: nothing there) to head; empty when it is at head.

    Tenant SQL uses unqualified names alone, so the text is the same for every tenant. With `shared` it is for the one schema of all tenants.
    """
    if revision == head(plane):
        return ""
    steps = [step.module for step in scripts_of(plane).iterate_revisions("head", revision or "base")]
    if revision is None:
        operations = [step.upgrade_empty if getattr(step, "online", False) else step.upgrade for step in reversed(steps)]
        return render(*operations, shared=shared)
    return render(*(step.upgrade for step in reversed(steps)), shared=shared)


def render(*operations: Callable[[], None], shared: SharedPlane | None = None) -> str:
    """SQL of what `operations` do with Alembic's `op`."""
    from alembic.operations import Operations  # noqa: PLC0415 - see above
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415

    buffer = io.StringIO()
    options = {"as_sql": True, "output_buffer": buffer, "literal_binds": True, "target_metadata": None}
    context = MigrationContext.configure(dialect_name="postgresql", opts=options)
    if shared is not None:
        from billingwatch.postgres.shared_impl import SharedImpl  # noqa: PLC0415

        context.impl = SharedImpl(context, shared, buffer, options)
    with Operations.context(context):
        for operation in operations:
            operation()
    return buffer.getvalue()


def known_revision(plane: Plane, revision: str) -> bool:
    """Whether this release carries `revision`; a newer release's is not known."""
    return revision in lineage(plane)


@cache
def views() -> Mapping[str, str]:
    """The analysts' views: name → the SQL that creates and comments it, in the order of their names."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted((schema_root() / "views").glob("*.sql"))}


@cache
def render_drop_views() -> str:
    """SQL that drops the views of a tenant schema, so that a migration may change the columns that they read."""
    return "".join(f"DROP VIEW IF EXISTS {name};\n" for name in views())


@cache
def render_views() -> str:
    """SQL that creates the views of a tenant schema."""
    return "\n".join(views().values())


@cache
def render_shared_views(*, possible: bool = False) -> str:
    """The same for the schema of all tenants: who reads a view sees what the tables' policies let them see."""
    made = render_possible_views() if possible else render_views()
    return made + "".join(f"\nALTER VIEW IF EXISTS {name} SET (security_invoker = true);" for name in views())


@cache
def render_possible_views() -> str:
    """SQL that creates those views for which a tenant schema has the columns."""
    return "\n".join(
        f"DO $possible$ BEGIN EXECUTE $view$ {view} $view$; EXCEPTION WHEN undefined_column OR undefined_table THEN NULL; END $possible$;"
        for view in views().values()
    )


@cache
def views_digest() -> str:
    return hashlib.sha256(render_views().encode()).hexdigest()[:16]


@cache
def scripts_of(plane: Plane) -> ScriptDirectory:
    """The revisions of a plane, as Alembic reads them."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - see above

    return ScriptDirectory(str(schema_root() / plane))
