"""The fleet of the isolation report in django-tenants: provisioning, ADD COLUMN over all tenants, and a migration with nothing to do.

Works in a database of its own on the given server, dropped afterwards. Prints JSON, times in seconds.
"""

import argparse
import contextlib
import io
import json
import platform
import sys
import tempfile
import time
import uuid
from pathlib import Path

import django
import psycopg
from django.conf import settings
from django.core.management import call_command
from psycopg import sql

HERE = Path(__file__).parent

ADD_COLUMN = """
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("fleet", "0001_initial")]
    operations = [migrations.AddField("charge", "note", models.TextField(null=True))]
"""


def main() -> None:
    """Measure, and clear away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--dsn", required=True, help="a PostgreSQL whose role may create databases: postgresql://user:password@host:port/db"
    )
    parser.add_argument("--tenants", type=int, default=100)
    arguments = parser.parse_args()
    database = f"peer_{uuid.uuid4().hex[:10]}"
    with psycopg.connect(arguments.dsn, autocommit=True) as admin, tempfile.TemporaryDirectory() as scratch:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        try:
            json.dump(measure(admin, database, Path(scratch), arguments.tenants), sys.stdout, indent=2)
            sys.stdout.write("\n")
        finally:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))


def measure(admin: psycopg.Connection, database: str, scratch: Path, tenants: int) -> dict[str, object]:
    """Provision `tenants` tenants one after the other, then migrate them all three times."""
    configure(admin, database, scratch)
    from operators.models import Client  # noqa: PLC0415 - models come after configure()

    quietly("makemigrations", "operators", "fleet")
    quietly("migrate_schemas", "--shared")
    Client.objects.create(schema_name="public", name="public")
    times = []
    for number in range(tenants):
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            Client.objects.create(schema_name=f"tenant_{number:05}", name=f"tenant-{number}")
        times.append(time.perf_counter() - began)
    nothing = timed("migrate_schemas", "--tenant")
    (scratch / "fleet_migrations" / "0002_note.py").write_text(ADD_COLUMN, encoding="utf-8")
    column = timed("migrate_schemas", "--tenant")
    return {
        "tenants": tenants,
        "provision_each": sum(times) / len(times),
        "add_column": column,
        "nothing_to_do": nothing,
        "postgres": admin.execute("SHOW server_version").fetchone()[0],
        "django": django.get_version(),
        "python": platform.python_version(),
    }


def configure(admin: psycopg.Connection, database: str, scratch: Path) -> None:
    """Settings as django-tenants' manual gives them; migrations are written into `scratch`."""
    sys.path[:0] = [str(scratch), str(HERE)]
    for app in ("operators", "fleet"):
        (scratch / f"{app}_migrations").mkdir()
        (scratch / f"{app}_migrations" / "__init__.py").touch()
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django_tenants.postgresql_backend",
                "NAME": database,
                "USER": admin.info.user,
                "PASSWORD": admin.info.password,
                "HOST": admin.info.host,
                "PORT": admin.info.port,
            }
        },
        DATABASE_ROUTERS=("django_tenants.routers.TenantSyncRouter",),
        SHARED_APPS=("django_tenants", "django.contrib.contenttypes", "operators"),
        TENANT_APPS=("fleet",),
        INSTALLED_APPS=("django_tenants", "django.contrib.contenttypes", "operators", "fleet"),
        TENANT_MODEL="operators.Client",
        TENANT_DOMAIN_MODEL="operators.Domain",
        MIGRATION_MODULES={"operators": "operators_migrations", "fleet": "fleet_migrations"},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()


def timed(*command: str) -> float:
    """Seconds that a management command takes."""
    began = time.perf_counter()
    quietly(*command)
    return time.perf_counter() - began


def quietly(*command: str) -> None:
    """Run a management command without its talk."""
    call_command(*command, verbosity=0)


if __name__ == "__main__":
    main()
