"""Write a revision from what the table definitions say and the revisions do not: make migration PLANE=tenant M="note of a customer"

The two are compared on a server of the script's own. What cannot be seen by comparing (data, functions, storage parameters) is written by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import asyncpg
import msgspec
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.operations.ops import OpContainer
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from billingwatch.logs import configure_logs
from billingwatch.postgres import control_plane, migrations, tenant_plane
from billingwatch.postgres.connections import ControlConnection, open_connection
from billingwatch.postgres.embedded import EmbeddedServer
from billingwatch.postgres.revision_file import IMPORTS, revision_text
from billingwatch.settings import load_settings
from billingwatch.tenancy.migrate import ensure_control_plane

ROOT = Path(__file__).parents[1]
METADATA: dict[migrations.Plane, MetaData] = {"control": control_plane.metadata, "tenant": tenant_plane.metadata}
SCHEMA = "tenant_aaaaaaaaaa"
VERSIONS = "alembic_version"  # ours to keep, in no metadata


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """Python that makes a schema what its metadata says, and back; empty when it is that already."""

    up: str
    back: str
    imports: tuple[str, ...]


async def set_up(dsn: str) -> None:
    """A control plane and one tenant schema at head."""
    connection = await open_connection(dsn, "billingwatch migration")
    await ensure_control_plane(ControlConnection(connection))
    await connection.execute(f"CREATE SCHEMA {SCHEMA}; SET search_path = {SCHEMA}; {migrations.render_upgrade('tenant')}")
    await connection.close()


async def compare(dsn: str, plane: migrations.Plane, metadata: MetaData, schema_name: str = SCHEMA) -> Changes:
    """What `metadata` says that the plane's schema does not have, or has otherwise."""

    async def connect() -> asyncpg.Connection:
        connection = await open_connection(dsn, "billingwatch migration")
        if plane == "tenant":
            await connection.execute(f"SET search_path = {schema_name}")
        return connection

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    async with engine.connect() as connection:
        changes = await connection.run_sync(_compare, plane, metadata)
    await engine.dispose()
    return changes


def _compare(connection: Connection, plane: migrations.Plane, metadata: MetaData) -> Changes:
    options = {
        "compare_type": True,
        "compare_server_default": True,
        "include_schemas": plane == "control",
        "include_name": lambda name, kind, _: plane == "tenant" or kind != "schema" or name == "control",
        "include_object": lambda _, name, kind, *__: (kind, name) != ("table", VERSIONS),
    }
    context = MigrationContext.configure(connection, opts=options)
    script = produce_migrations(context, metadata)

    def code(operations: OpContainer | None) -> str:
        if operations is None or operations.is_empty():
            return ""
        text = render_python_code(operations, migration_context=context)
        return "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))

    up, back = code(script.upgrade_ops), code(script.downgrade_ops)
    imports = IMPORTS
    if "postgresql." in up + back:
        imports += ("from sqlalchemy.dialects import postgresql",)
    return Changes(up=up, back=back, imports=imports)


def write(root: Path, plane: migrations.Plane, changes: Changes, message: str, phase: str) -> Path:
    """The revision's file, formatted as all are."""
    down = migrations.head(plane)
    revision = f"{int(down) + 1:04d}"
    slug = re.sub(r"[^a-z0-9]+", "_", message.lower()).strip("_")[:40].rstrip("_")
    path = root / plane / "versions" / f"{revision}_{slug}.py"
    text = revision_text(
        f"{phase}: {message.rstrip('.')}", revision=revision, down=down, up=changes.up, back=changes.back, imports=changes.imports
    )
    path.write_text(text, encoding="utf-8")
    for command in (["check", "--fix-only", "--select", "I,F401"], ["format"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, "--quiet", "--config", str(ROOT / "pyproject.toml"), str(path)], check=True)
    return path


def main() -> None:
    """Print the path of the revision's file; exit with 1 when there is nothing to write."""
    parser = argparse.ArgumentParser(description="Write a revision from the table definitions.")
    parser.add_argument("plane", choices=sorted(METADATA))
    parser.add_argument("message", help="what it does, as its docstring will say")
    parser.add_argument(
        "--phase", choices=["pre", "post"], default="pre", help="pre: adds; post: takes away what the last release no longer uses"
    )
    options = parser.parse_args()
    if not re.search(r"[a-zA-Z]", options.message):
        parser.error("the message needs words")

    settings = load_settings()
    configure_logs(log_format=settings.log_format, log_level="warning")  # stdout is for the path
    directory = Path(tempfile.mkdtemp(prefix="billingwatch-migration-"))
    directory.chmod(0o711)  # as root the server runs as another user, who must pass through
    try:
        server = EmbeddedServer.acquire(directory, binaries=settings.postgres_bin, settings={"fsync": "off"})
        try:
            asyncio.run(set_up(server.dsn))
            changes = asyncio.run(compare(server.dsn, options.plane, METADATA[options.plane]))
        finally:
            server.release()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if not changes.up:
        sys.stderr.write(f"nothing differs: change src/billingwatch/postgres/{options.plane}_plane.py first\n")
        sys.exit(1)
    sys.stdout.write(f"{write(migrations.schema_root(), options.plane, changes, options.message, options.phase)}\n")


if __name__ == "__main__":
    main()
