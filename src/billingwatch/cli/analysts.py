"""`billingwatch analysts`: who may query a tenant's tables with psql, Metabase or pandas."""

from __future__ import annotations

import shlex
import shutil

import msgspec
import rich_click as click

from billingwatch.cli.output import as_json, print_facts, print_json, print_table, talk
from billingwatch.cli.session import Session, run_session
from billingwatch.tenancy.analysts import Door, analyst_dsn, create_analyst, list_analysts, revoke_analyst


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What `analysts create --json` prints."""

    tenant: str
    schema: str
    role: str
    password: str
    dsn: str


@click.group()
def analysts() -> None:
    """Let people query one tenant's tables, read-only."""


@analysts.command()
@click.argument("tenant")
@as_json
def create(tenant: str, *, as_json: bool) -> None:
    """Make a login role that reads the schema of TENANT and nothing else."""

    async def work(session: Session) -> tuple[Credentials, tuple[Door, ...], str, bool]:
        made = await create_analyst(session.control, tenant)
        dsn = analyst_dsn(session.database.analysts_dsn, made.role, made.password)
        credentials = Credentials(tenant=made.tenant, schema=made.schema_name, role=made.role, password=made.password, dsn=dsn)
        return credentials, made.open_doors, _psql(session, dsn), session.settings.database_url is None

    made, doors, psql, embedded = run_session(work)
    if as_json:
        print_json(made)
    else:
        facts = [("tenant", made.tenant), ("schema", made.schema), ("role", made.role), ("password", made.password), ("DSN", made.dsn)]
        print_facts([*facts, ("psql", psql)])
        talk.print("The password is not stored: keep it now.", style="yellow")
    if embedded:
        talk.print("The embedded PostgreSQL answers on this machine, while `billingwatch serve` runs.", markup=False)
    for door in doors:
        talk.print(f"warning: every role may {door.deed} in this database; a superuser can stop that with", style="yellow", markup=False)
        talk.print(f"  {door.remedy}", markup=False, soft_wrap=True)


@analysts.command(name="list")
@click.argument("tenant", required=False)
@as_json
def list_(tenant: str | None, *, as_json: bool) -> None:
    """List all analysts, or those of TENANT."""
    rows = run_session(lambda session: list_analysts(session.control, tenant))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["role", "tenant", "schema", "sessions", "created"], [(r.role, r.tenant, r.schema_name, r.sessions, r.created_at) for r in rows]
    )


@analysts.command()
@click.argument("role")
@as_json
def revoke(role: str, *, as_json: bool) -> None:
    """End the sessions of ROLE and drop it."""
    run_session(lambda session: revoke_analyst(session.control, role))
    if as_json:
        print_json({"role": role, "revoked": True})
        return
    talk.print(f"{role} revoked; its sessions are ended", markup=False)


def _psql(session: Session, dsn: str) -> str:
    """The line to paste into a shell; a psql that is not on the path is named in full."""
    psql = "psql" if shutil.which("psql") else str(session.database.psql or "psql")
    return f"{shlex.quote(psql)} {shlex.quote(dsn)}"
