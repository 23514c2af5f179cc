"""`billingwatch tenants`: provision, pause, resume and remove tenants, and keep their URLs and signing secrets."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import cast

import msgspec
import rich_click as click

from billingwatch.cli.output import as_json, print_facts, print_json, print_table, talk
from billingwatch.cli.session import Session, run_session
from billingwatch.cli.spans import SpanType
from billingwatch.clock import utc_now
from billingwatch.errors import InputInvalid, SecretInvalid
from billingwatch.ingest.last_event import last_event
from billingwatch.tenancy.lifecycle import pause_tenant, resume_tenant, rotate_webhook_url
from billingwatch.tenancy.provision import add_secret, find_tenant, list_secrets, list_tenants, provision, remove_secret
from billingwatch.tenancy.remove import remove_tenant
from billingwatch.tenancy.tenants import Mode

GRACE_LONGEST = timedelta(days=90)  # of a webhook URL after its rotation


class TenantCreated(msgspec.Struct, frozen=True, kw_only=True):
    """What `tenants create --json` prints."""

    id: int
    name: str
    schema: str
    mode: str
    webhook_url: str
    api_key: str


class UrlRotated(msgspec.Struct, frozen=True, kw_only=True):
    """The output of `tenants rotate-url --json`."""

    id: int
    name: str
    webhook_url: str
    previous_url_until: datetime | None


@click.group()
def tenants() -> None:
    """Provision, inspect, pause and remove tenants."""


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
            webhook_url=_webhook_url(session, made.webhook_token),
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
    """List all tenants with their state."""
    rows = run_session(lambda session: list_tenants(session.control))
    if as_json:
        print_json([_public(row) for row in rows])
        return
    print_table(
        ["id", "name", "mode", "state", "secrets", "keys", "pending", "failed", "created"],
        [
            (r.tenant_id, r.name, r.mode, r.status, r.secrets, r.api_keys, r.pending, r.dead_letters, f"{r.created_at:%Y-%m-%d}")
            for r in rows
        ],
    )


@tenants.command()
@click.argument("name")
@as_json
def show(name: str, *, as_json: bool) -> None:
    """Show tenant NAME: its state, its last event, and deliveries that were refused or ignored."""

    async def work(session: Session) -> dict[str, object]:
        row = await find_tenant(session.control, name)
        last = await last_event(session.control, row)
        return {**_public(row), "last_event_at": last and last.received_at, "last_event_type": last and last.type}

    facts = run_session(work)
    if as_json:
        print_json(facts)
        return
    print_facts([(key.replace("_", " "), value) for key, value in facts.items()])


@tenants.command()
@click.argument("name")
@as_json
def pause(name: str, *, as_json: bool) -> None:
    """Pause tenant NAME: its events are recorded, and processed after `tenants resume`."""
    done = run_session(lambda session: pause_tenant(session.control, name, as_of=utc_now()))
    if as_json:
        print_json(done)
        return
    talk.print(f"tenant {name} {'is paused' if done.changed else 'was paused already'}", markup=False)
    talk.print("To process the events that arrive now, resume it:")
    talk.print(f"  billingwatch tenants resume {name}", markup=False)


@tenants.command()
@click.argument("name")
@as_json
def resume(name: str, *, as_json: bool) -> None:
    """Resume tenant NAME: the events that waited are processed first."""
    done = run_session(lambda session: resume_tenant(session.control, name, as_of=utc_now()))
    if as_json:
        print_json(done)
        return
    talk.print(f"tenant {name} {'is active' if done.changed else 'was active already'}; {done.pending} events wait", markup=False)


@tenants.command(name="rotate-url")
@click.argument("name")
@click.option(
    "--grace",
    type=SpanType(GRACE_LONGEST, zero=True),
    default="7d",
    show_default=True,
    envvar="BILLINGWATCH_CLI_GRACE",
    help="Span in which the old URL is still accepted; 0 refuses it at once.",
)
@as_json
def rotate_url(name: str, grace: timedelta, *, as_json: bool) -> None:
    """Give tenant NAME a new webhook URL, and show it once."""

    async def work(session: Session) -> UrlRotated:
        made = await rotate_webhook_url(session.control, name, grace=grace)
        return UrlRotated(
            id=made.tenant_id,
            name=made.name,
            webhook_url=_webhook_url(session, made.webhook_token),
            previous_url_until=made.previous_until,
        )

    done = run_session(work)
    if as_json:
        print_json(done)
        return
    until = "refused from now on" if done.previous_url_until is None else f"accepted until {done.previous_url_until:%Y-%m-%d %H:%M} UTC"
    print_facts([("webhook URL", done.webhook_url), ("previous URL", until)])
    talk.print("The webhook URL is not stored: keep it now, and set it in Stripe.", style="yellow")


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


def _webhook_url(session: Session, token: str) -> str:
    return f"{session.settings.public_url.rstrip('/')}/webhook/{token}"


def _public(row: msgspec.Struct) -> dict[str, object]:
    facts = msgspec.structs.asdict(row)
    return {"id": facts.pop("tenant_id"), "name": facts.pop("name"), "schema": facts.pop("schema_name"), **facts}
