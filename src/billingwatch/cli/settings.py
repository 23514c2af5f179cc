"""`billingwatch settings`: the settings of this environment, and those that every process must agree on."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import msgspec
import rich_click as click

from billingwatch.cli.output import as_json, print_json, print_table, talk
from billingwatch.cli.session import Session, run_session
from billingwatch.errors import BillingWatchError, InputInvalid
from billingwatch.settings import PREFIX, Settings, load_settings
from billingwatch.tenancy.fleet_settings import AGREED, list_fleet_settings, set_fleet_setting

HIDDEN = "(hidden)"


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One setting as this process reads it."""

    name: str
    value: str | int | None
    origin: str
    """environment or default."""
    fleet: str | None
    """The value that every process must have; null when processes may differ or none has started."""


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    value: str


@click.group()
def settings() -> None:
    """Show the settings, and change those that every process must agree on."""


@settings.command("list")
@as_json
def list_settings(*, as_json: bool) -> None:
    """List every setting with its value and origin; secrets are hidden.

    FLEET is the value that every process must have. It is not shown while the database is unavailable.
    """

    async def read(session: Session) -> dict[str, str]:
        return await list_fleet_settings(session.control)

    try:
        fleet = run_session(read)
    except BillingWatchError as error:
        talk.print(f"the fleet's values are not known: {error}", markup=False, soft_wrap=True)
        fleet = {}
    listed = _listed(load_settings(), fleet)
    if as_json:
        print_json(listed)
        return
    print_table(
        ("SETTING", "VALUE", "ORIGIN", "FLEET"),
        [(f"{PREFIX}{one.name.upper()}", one.value, one.origin, one.fleet) for one in listed],
    )


@settings.command("set")
@click.argument("name", type=click.Choice(AGREED))
@click.argument("value")
@as_json
def set_setting(name: str, value: str, *, as_json: bool) -> None:
    """Change a value that every process must agree on. Stop every `serve` and `worker` first."""
    changed = Changed(name=name, value=_checked(name, value))

    async def change(session: Session) -> None:
        await set_fleet_setting(session.control, changed.name, changed.value)

    run_session(change)
    if as_json:
        print_json(changed)
    else:
        assignment = f"{PREFIX}{name.upper()}={changed.value}"
        talk.print(f"start every process with {assignment}", markup=False, soft_wrap=True)


def _listed(settings: Settings, fleet: dict[str, str]) -> list[Listed]:
    variables = [name for name, text in os.environ.items() if name.startswith(PREFIX) and text]
    given = {name.removeprefix(PREFIX).lower() for name in variables}
    return [
        Listed(
            name=name,
            value=_shown(name, getattr(settings, name)),
            origin="environment" if name in given else "default",
            fleet=fleet.get(name),
        )
        for name in Settings.__struct_fields__
    ]


def _shown(name: str, value: object) -> str | int | None:
    if value is None or isinstance(value, int):
        return value
    if name == "secret_key":
        return HIDDEN
    if name == "database_url":
        return _without_password(str(value))
    return str(value)


def _without_password(url: str) -> str:
    """Hide the password, and the query, in which a password may stand, too."""
    parts = urlsplit(url)
    user, separator, place = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    netloc = f"{name}{colon}{HIDDEN if colon else ''}{separator}{place}"
    return parts._replace(netloc=netloc, query=HIDDEN if parts.query else "").geturl()


def _checked(name: str, value: str) -> str:
    """Return the value as settings are written. InputInvalid when no process could be started with it."""
    field = next(field for field in msgspec.structs.fields(Settings) if field.name == name)
    try:
        return str(msgspec.convert(value, field.type, strict=False))
    except msgspec.ValidationError as error:
        raise InputInvalid(reason=f"{name}: {error}", hint=f"give a number, like `billingwatch settings set {name} 4`") from error
