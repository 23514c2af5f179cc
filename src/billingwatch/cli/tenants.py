"""`billingwatch tenants`: provision and look at tenants, and keep their signing secrets."""

from __future__ import annotations

import sys
from typing import cast

import msgspec
import rich_click as click

from billingwatch.cli.output import as_json, print_facts, print_json, print_table, talk
from billingwatch.cli.session import Session, run_session
from billingwatch.errors import InputInvalid, SecretInvalid
from billingwatch.tenancy.provision import add_secret, find_tenant, list_secrets, list_tenants, provision, remove_secret
from billingwatch.tenancy.remove import remove_tenant
from billingwatch.tenancy.tenants import Mode


class TenantCreated(msgspec.Struct, frozen=True, kw_only=True):
    """What `tenants create --json` prints."""

    id: int
    name: str
    schema: str
    mode: str
    webhook_url: str
    api_key: str


@click.group()
def tenants() -> None:
    """Provision and inspect tenants."""


@tenants.command()
@click.argument("name")
@click.option(
    "--mode",
    type=click.Choice(["live", "test"]),
    default="live",
    show_default=True,
    help="Whose events count; the other mode's are kept apart.",
)
@click.option(
    "--secret", "secrets", multiple=True, metavar="whsec_…|-", help="Signing secret of the endpoint in Stripe; `-` reads it from stdin."
)
@click.option("--rate-limit", type=click.IntRange(min=1), help="Events per second, instead of the service's default.")
@as_json
def create(name: str, mode: str, secrets: tuple[str, ...], rate_limit: int | None, *, as_json: bool) -> None:
    """Provision tenant NAME: schema, tables, webhook URL, API key."""
    given = [_secret(secret) for secret in secrets]

    async def work(session: Session) -> TenantCreated:
        made = await provision(session.control, session.seal, name, mode=cast(Mode, mode), secrets=given, rate_limit=rate_limit)
        return TenantCreated(
            id=made.tenant_id,
            name=made.name,
            schema=made.schema_name,
            mode=made.mode,
            webhook_url=f"{session.settings.public_url.rstrip('/')}/webhook/{made.webhook_token}",
            api_key=made.api_key,
        )

    made = run_session(work)
    if as_json:
        print_json(made)
        return
    print_facts(
        [
            ("id", made.id),
            ("name", made.name),
            ("schema", made.schema),
            ("mode", made.mode),
            ("webhook URL", made.webhook_url),
            ("API key", made.api_key),
        ]
    )
    talk.print("The webhook URL and the API key are not stored: keep them now.", style="yellow")
    if not given:
        talk.print("Register the URL in Stripe, then add the endpoint's secret:")
        talk.print(f"  billingwatch tenants secret add {name} -", markup=False)


@tenants.command(name="list")
@as_json
def list_(*, as_json: bool) -> None:
    """List all tenants."""
    rows = run_session(lambda session: list_tenants(session.control))
    if as_json:
        print_json([_public(row) for row in rows])
        return
    print_table(
        ["id", "name", "schema", "mode", "status", "secrets", "pending", "dead letters", "created"],
        [(r.tenant_id, r.name, r.schema_name, r.mode, r.status, r.secrets, r.pending, r.dead_letters, r.created_at) for r in rows],
    )


@tenants.command()
@click.argument("name")
@as_json
def show(name: str, *, as_json: bool) -> None:
    """Show tenant NAME."""
    row = run_session(lambda session: find_tenant(session.control, name))
    if as_json:
        print_json(_public(row))
        return
    print_facts([(key.replace("_", " "), value) for key, value in _public(row).items()])


@tenants.command(name="remove")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def remove_(name: str, *, yes: bool, as_json: bool) -> None:
    """Remove tenant NAME for good: its events, tables, analysts, keys and secrets."""
    run_session(lambda session: find_tenant(session.control, name))
    if not yes and click.prompt(f"Everything of `{name}` will be deleted; type its name to go on", err=True) != name:
        raise InputInvalid(reason="that is not its name: nothing was removed")
    row = run_session(lambda session: remove_tenant(session.control, name))
    if as_json:
        print_json({"id": row.tenant_id, "name": row.name, "removed": True})
        return
    talk.print(f"tenant {row.name} removed", markup=False)


@tenants.group()
def secret() -> None:
    """Keep a tenant's signing secrets; two can live at once, for a roll."""


@secret.command(name="add")
@click.argument("name")
@click.argument("secret", metavar="whsec_…|-")
@as_json
def add(name: str, secret: str, *, as_json: bool) -> None:
    """Add a signing secret; `-` reads it from stdin."""
    text = _secret(secret)
    row = run_session(lambda session: add_secret(session.control, session.seal, name, text))
    if as_json:
        print_json(row)
        return
    talk.print(f"secret {row.secret_id} added; deliveries signed with it are accepted from now on")


@secret.command(name="list")
@click.argument("name")
@as_json
def list_of_secrets(name: str, *, as_json: bool) -> None:
    """List a tenant's signing secrets, without the secrets."""
    rows = run_session(lambda session: list_secrets(session.control, name))
    if as_json:
        print_json(rows)
        return
    print_table(["secret", "created"], [(row.secret_id, row.created_at) for row in rows])


@secret.command()
@click.argument("name")
@click.argument("secret_id", type=int)
def remove(name: str, secret_id: int) -> None:
    """Remove a signing secret; deliveries signed with it are refused from now on."""
    run_session(lambda session: remove_secret(session.control, name, secret_id))
    talk.print(f"secret {secret_id} removed")


def _secret(given: str) -> str:
    text = sys.stdin.readline().strip() if given == "-" else given
    if not text:
        raise SecretInvalid
    return text


def _public(row: msgspec.Struct) -> dict[str, object]:
    facts = msgspec.structs.asdict(row)
    return {"id": facts.pop("tenant_id"), "name": facts.pop("name"), "schema": facts.pop("schema_name"), **facts}
