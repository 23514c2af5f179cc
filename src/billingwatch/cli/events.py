"""`billingwatch events`: events that could not be projected."""

from __future__ import annotations

import rich_click as click

from billingwatch.cli.output import as_json, print_json, print_table, talk
from billingwatch.cli.session import Session, run_session
from billingwatch.clock import utc_now
from billingwatch.errors import DeadLetterNotFound, RemovalUnfinished
from billingwatch.tenancy.provision import find_tenant
from billingwatch.visit import DeadLetter, list_dead_letters, retry_dead_letters


@click.group()
def events() -> None:
    """See and retry events that could not be projected."""


@events.command()
@click.argument("tenant")
@as_json
def failed(tenant: str, *, as_json: bool) -> None:
    """List TENANT's events that could not be projected, with the reason."""

    async def work(session: Session) -> list[DeadLetter]:
        found = await find_tenant(session.control, tenant)
        return await list_dead_letters(session.control, found.tenant_id)

    letters = run_session(work)
    if as_json:
        print_json(letters)
        return
    print_table(["event", "failed", "error"], [(letter.event_id, letter.failed_at, letter.error) for letter in letters])


@events.command()
@click.argument("tenant")
@click.argument("event_id", required=False)
def retry(tenant: str, event_id: str | None) -> None:
    """Queue TENANT's failed events, or one of them, for another try by the running service."""

    async def work(session: Session) -> tuple[int, str]:
        found = await find_tenant(session.control, tenant)
        if found.status == "removing":
            raise RemovalUnfinished(name=tenant)
        return await retry_dead_letters(session.control, found.tenant_id, event_id, as_of=utc_now()), found.status

    count, status = run_session(work)
    if event_id is not None and not count:
        raise DeadLetterNotFound(event_id=event_id)
    talk.print(f"{count} event{'' if count == 1 else 's'} queued")
    if status == "paused":
        talk.print(f"{tenant} is paused: run `billingwatch tenants resume {tenant}` to process what is queued", markup=False)
