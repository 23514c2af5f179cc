"""`billingwatch detectors`: see and set a tenant's detectors."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import rich_click as click

from billingwatch.cli.output import as_json, print_facts, print_json, print_table, talk
from billingwatch.cli.session import Session, run_session
from billingwatch.clock import utc_now
from billingwatch.detection.catalog import DetectorRow, changed, describe, find_detector
from billingwatch.detection.engine import beginning
from billingwatch.detection.registry import DETECTORS
from billingwatch.detection.tuning import tuning_of
from billingwatch.errors import InputInvalid
from billingwatch.judgement import behind_of
from billingwatch.tenancy.audit import OPERATOR
from billingwatch.tenancy.detector_settings import change_setting
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.tenants import usable


@click.group()
def detectors() -> None:
    """See and set a tenant's detectors."""


@detectors.command(name="list")
@click.argument("tenant")
@as_json
def list_(tenant: str, *, as_json: bool) -> None:
    """List the detectors and whether they are at work for TENANT."""
    rows = run_session(lambda session: _described(session, tenant))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["detector", "state", "driven by", "set by the tenant", "fires when"],
        [
            (row.name, f"{row.state}, behind" if row.behind_since else row.state, row.driven_by, _own(row) or None, row.description)
            for row in rows
        ],
    )


@detectors.command()
@click.argument("tenant")
@click.argument("name")
@as_json
def show(tenant: str, name: str, *, as_json: bool) -> None:
    """Show detector NAME with its thresholds for TENANT."""
    find_detector(name)
    [row] = run_session(lambda session: _described(session, tenant, name))
    _print(row, as_json=as_json)


@detectors.command(name="set")
@click.argument("tenant")
@click.argument("name")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Set a threshold; may be given several times.")
@click.option("--on/--off", "active", default=None, help="Turn it on or off.")
@click.option("--reset", is_flag=True, help="All thresholds back to their defaults, before those given with --set.")
@as_json
def set_(tenant: str, name: str, pairs: tuple[str, ...], active: bool | None, *, reset: bool, as_json: bool) -> None:
    """Set detector NAME for TENANT; a running service works with it at once."""
    detector = find_detector(name)
    wanted: Mapping[str, object | None] = read_pairs(pairs)
    if reset:
        wanted = {**dict.fromkeys(detector.thresholds.__struct_fields__), **wanted}
    if not wanted and active is None:
        raise InputInvalid(reason="there is nothing to set", hint="give --set KEY=VALUE, --on, --off or --reset")

    async def work(session: Session) -> DetectorRow:
        found = usable(await session.tenant(tenant))
        await change_setting(
            session.control,
            found,
            name,
            lambda setting: changed(detector, setting, active=active, thresholds=wanted),
            actor=OPERATOR,
        )
        return (await _described(session, tenant, name))[0]

    row = run_session(work)
    _print(row, as_json=as_json)
    talk.print(f"{name} is set for {tenant}", markup=False)


def read_pairs(pairs: tuple[str, ...]) -> dict[str, object]:
    """Thresholds as `key=value` gives them; what is no number is left to whoever knows the threshold. InputInvalid."""
    read: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputInvalid(reason=f"`{pair}` is not KEY=VALUE", hint="such as --set window_minutes=30")
        try:
            read[key.strip()] = msgspec.json.decode(value)
        except (msgspec.DecodeError, ValueError):
            read[key.strip()] = value
        if read[key.strip()] is None:  # `null`: --reset is the way back to a default
            read[key.strip()] = value
    return read


async def _described(session: Session, tenant: str, name: str | None = None) -> list[DetectorRow]:
    found = await session.tenant(tenant)
    tuning = tuning_of(found)
    async with tenant_scope(session.control, usable(found), readonly=True) as scoped:
        begun = await beginning(scoped)
        behind = await behind_of(scoped, found.tenant_id, as_of=utc_now())
    wanted = DETECTORS.values() if name is None else [find_detector(name)]
    return [describe(detector, tuning, beginning=begun, behind=behind, as_of=utc_now()) for detector in wanted]


def _print(row: DetectorRow, *, as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    until = [("learning until", row.learning_until)] if row.learning_until else []
    behind = [("behind since", row.behind_since)] if row.behind_since else []
    facts = [("detector", row.name), ("fires when", row.description), ("driven by", row.driven_by), ("state", row.state)]
    print_facts([*facts, *until, *behind])
    print_table(
        ["threshold", "value", "default", "from", "to", "unit", "meaning"],
        [(each.key, each.value, each.default, each.minimum, each.maximum, each.unit, each.description) for each in row.thresholds],
    )


def _own(row: DetectorRow) -> str:
    return ", ".join(f"{each.key}={each.value}" for each in row.thresholds if each.value != each.default)
