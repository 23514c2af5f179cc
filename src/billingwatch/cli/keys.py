"""`billingwatch keys`: API keys of tenants, and the secret key that encrypts every signing secret."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import cast

import rich_click as click

from billingwatch.cli.output import as_json, print_facts, print_json, print_table, talk
from billingwatch.cli.session import Session, run_session
from billingwatch.cli.spans import SpanType
from billingwatch.tenancy.keys import KEY_ID_MAX, create_key, list_keys, revoke_key
from billingwatch.tenancy.master_key import Rotated, rotate_master_key
from billingwatch.tenancy.sealing import key_file
from billingwatch.tenancy.tenants import Scope

LONGEST = timedelta(days=3650)  # of a key's life
UNREADABLE_SHOWN = 10


@click.group()
def keys() -> None:
    """Create, list and revoke API keys, and rotate the secret key."""


@keys.command()
@click.argument("tenant")
@click.option("--name", required=True, help="Name of the key; the audit log shows it.")
@click.option(
    "--scope",
    type=click.Choice(["read", "write"]),
    default="write",
    show_default=True,
    envvar="BILLINGWATCH_CLI_SCOPE",
    help="read: GET and HEAD only.",
)
@click.option("--expires", type=SpanType(LONGEST), envvar="BILLINGWATCH_CLI_EXPIRES", help="Span until the key ends, like `90d`.")
@as_json
def create(tenant: str, name: str, scope: str, expires: timedelta | None, *, as_json: bool) -> None:
    """Create an API key of TENANT, and show it once."""
    made = run_session(lambda session: create_key(session.control, tenant, name, scope=cast(Scope, scope), expires_in=expires))
    if as_json:
        print_json(made)
        return
    print_facts(
        [
            ("id", made.key_id),
            ("name", made.name),
            ("scope", made.scope),
            ("expires", "never" if made.expires_at is None else made.expires_at),
            ("API key", made.api_key),
        ]
    )
    talk.print("The API key is not stored: keep it now.", style="yellow")


@keys.command(name="list")
@click.argument("tenant")
@as_json
def list_(tenant: str, *, as_json: bool) -> None:
    """List the API keys of TENANT, without the keys."""
    rows = run_session(lambda session: list_keys(session.control, tenant))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["id", "name", "begins", "scope", "expires", "last used"],
        [
            (
                row.key_id,
                row.name or "-",
                row.hint,
                row.scope,
                "expired" if row.expired else "never" if row.expires_at is None else f"{row.expires_at:%Y-%m-%d %H:%M}",
                "never" if row.last_used_at is None else f"{row.last_used_at:%Y-%m-%d %H:%M}",
            )
            for row in rows
        ],
    )


@keys.command()
@click.argument("tenant")
@click.argument("key_id", type=click.IntRange(1, KEY_ID_MAX))
@as_json
def revoke(tenant: str, key_id: int, *, as_json: bool) -> None:
    """Revoke API key KEY_ID of TENANT; calls with it get 401 within a second."""
    row = run_session(lambda session: revoke_key(session.control, tenant, key_id))
    if as_json:
        print_json(row)
        return
    talk.print(f"key {row.key_id} ({row.name or row.hint}) revoked", markup=False)


@keys.command(name="rotate-master")
@as_json
def rotate_master(*, as_json: bool) -> None:
    """Encrypt every signing secret with the first key of BILLINGWATCH_SECRET_KEY.

    Set it to NEW,OLD for every process and restart them before. Without that setting the command makes a new key in the data directory's
    key file, and running services read the file again. The command can be interrupted and run again.
    """

    async def work(session: Session) -> Rotated:
        return await rotate_master_key(
            session.control,
            session.seal,
            key_file(session.settings),
            on_batch=lambda count: None if as_json else talk.print(f"{count} secrets encrypted again"),
        )

    done = run_session(work)
    if as_json:
        print_json(done)
    else:
        print_facts(
            [
                ("encrypted again", done.reencrypted),
                ("current before", done.current_before),
                ("unreadable", len(done.unreadable)),
                ("old key needed", "no" if done.complete else "yes"),
            ]
        )
    _report(done)
    if not done.complete:
        sys.exit(1)


def _report(done: Rotated) -> None:
    for each in done.unreadable[:UNREADABLE_SHOWN]:
        talk.print(f"no key decrypts secret {each.secret_id} of {each.tenant}", markup=False)
    if not done.complete:
        talk.print("Keep every old key, add the missing one to BILLINGWATCH_SECRET_KEY, and run this again.", style="yellow")
        talk.print("If the key is lost, replace each secret with `billingwatch tenants secret remove` and `secret add`.")
        return
    talk.print("Nothing in this database needs the old key. Remove it from BILLINGWATCH_SECRET_KEY if it is there.")
    talk.print("Backups of the database made before now still need it.", style="yellow")
