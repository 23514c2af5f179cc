"""`billingwatch analysts`: who may query a tenant's tables with psql, Metabase or pandas."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Awaitable

import msgspec
import rich_click as click

from billingwatch.cli.output import as_json, print_facts, print_json, print_table, talk
from billingwatch.cli.session import Session, run_session
from billingwatch.tenancy.analysts import AnalystCreated, Door, analyst_dsn, create_analyst, list_analysts, revoke_analyst, rotate_analyst


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
    """Make a login role that reads the schema of TENANT and nothing else.

    The service ends the role's transactions after BILLINGWATCH_ANALYST_TRANSACTION_MINUTES and its idle sessions after
    BILLINGWATCH_ANALYST_IDLE_HOURS. It restores the password and the defaults of the role. At most 5 sessions and 1 GB of temporary
    files per session are possible.

    PostgreSQL cannot limit the memory and CPU of a session: the role may raise work_mem and remove statement_timeout. One session used
    1.8 GB in a test. If that is too much, give analysts a replica, or limit the memory and CPU of the server's container.
    """
    facts, doors = run_session(lambda session: _hand_out(session, create_analyst(session.control, tenant)))
    _show(facts, as_json=as_json)
    for door in doors:
        talk.print(f"warning: every role may {door.deed} in this database; a superuser can stop that with", style="yellow", markup=False)
        talk.print(f"  {door.remedy}", markup=False, soft_wrap=True)


@analysts.command()
@click.argument("role")
@as_json
def rotate(role: str, *, as_json: bool) -> None:
    """Give ROLE a new password and end its sessions; the old password is refused from now on."""
    facts, _ = run_session(lambda session: _hand_out(session, rotate_analyst(session.control, role)))
    _show(facts, as_json=as_json)


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


class _Handed(msgspec.Struct, frozen=True, kw_only=True):
    """Credentials and how to use them."""

    credentials: Credentials
    psql: str
    embedded: bool


async def _hand_out(session: Session, making: Awaitable[AnalystCreated]) -> tuple[_Handed, tuple[Door, ...]]:
    made = await making
    dsn = analyst_dsn(session.database.analysts_dsn, made.role, made.password)
    credentials = Credentials(tenant=made.tenant, schema=made.schema_name, role=made.role, password=made.password, dsn=dsn)
    return _Handed(credentials=credentials, psql=_psql(session, dsn), embedded=session.settings.database_url is None), made.open_doors


def _show(handed: _Handed, *, as_json: bool) -> None:
    made = handed.credentials
    if as_json:
        print_json(made)
    else:
        facts = [("tenant", made.tenant), ("schema", made.schema), ("role", made.role), ("password", made.password), ("DSN", made.dsn)]
        print_facts([*facts, ("psql", handed.psql)])
        talk.print("The password is not stored: keep it now.", style="yellow")
    if handed.embedded:
        talk.print("The embedded PostgreSQL accepts connections from this machine, while `billingwatch serve` runs.", markup=False)


def _psql(session: Session, dsn: str) -> str:
    """The line to paste into a shell; a psql that is not on the path is named in full."""
    psql = "psql" if shutil.which("psql") else str(session.database.psql or "psql")
    return f"{shlex.quote(psql)} {shlex.quote(dsn)}"
