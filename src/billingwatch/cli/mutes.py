"""`billingwatch mutes`: anomalies that a tenant's people do not want to hear about."""

from __future__ import annotations

from datetime import UTC, datetime

import rich_click as click

from billingwatch.cli.output import as_json, print_json, print_table, talk
from billingwatch.cli.session import Session, run_session
from billingwatch.detection.catalog import find_detector
from billingwatch.errors import InputInvalid
from billingwatch.tenancy.audit import OPERATOR
from billingwatch.tenancy.detector_settings import MUTE_ID_MAX, MuteRow, MuteWanted, add_mute, list_mutes, remove_mute

MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])


@click.group()
def mutes() -> None:
    """Mute anomalies; they are recorded all the same."""


@mutes.command()
@click.argument("tenant")
@click.option("--detector", help="Only of this detector.")
@click.option("--subject", help="Only of this subject, as the anomaly has it.")
@click.option("--since", type=MOMENT, help="Only those opened at or after this moment, UTC.")
@click.option("--until", type=MOMENT, help="Only those opened before this moment, UTC.")
@click.option("--reason", required=True, help="For colleagues.")
@as_json
def add(
    tenant: str, detector: str | None, subject: str | None, since: datetime | None, until: datetime | None, reason: str, *, as_json: bool
) -> None:
    """Mute anomalies of TENANT; what is not given is not asked."""
    if not reason.strip():
        raise InputInvalid(reason="a mute needs a reason", hint="give --reason")
    if subject is not None and not subject.strip():
        raise InputInvalid(reason="a mute of no subject covers nothing", hint="leave out --subject to mute all of them")
    wanted = MuteWanted(
        detector=None if detector is None else find_detector(detector).name,
        subject=subject,
        since=since and since.replace(tzinfo=UTC),
        until=until and until.replace(tzinfo=UTC),
        reason=reason,
    )

    async def work(session: Session) -> MuteRow:
        return await add_mute(session.control, await session.tenant(tenant), wanted, actor=OPERATOR)

    row = run_session(work)
    if as_json:
        print_json(row)
        return
    talk.print(f"mute {row.mute_id} added", markup=False)


@mutes.command(name="list")
@click.argument("tenant")
@as_json
def list_(tenant: str, *, as_json: bool) -> None:
    """List the mutes of TENANT."""

    async def work(session: Session) -> list[MuteRow]:
        return await list_mutes(session.control, await session.tenant(tenant))

    rows = run_session(work)
    if as_json:
        print_json(rows)
        return
    print_table(
        ["mute", "detector", "subject", "since", "until", "reason", "created"],
        [(row.mute_id, row.detector, row.subject, row.since, row.until, row.reason, row.created_at) for row in rows],
    )


@mutes.command()
@click.argument("tenant")
@click.argument("mute_id", type=click.IntRange(1, MUTE_ID_MAX))
@as_json
def remove(tenant: str, mute_id: int, *, as_json: bool) -> None:
    """Hear again what mute MUTE_ID of TENANT kept quiet."""

    async def work(session: Session) -> MuteRow:
        return await remove_mute(session.control, await session.tenant(tenant), mute_id, actor=OPERATOR)

    row = run_session(work)
    if as_json:
        print_json(row)
        return
    talk.print(f"mute {row.mute_id} removed", markup=False)
