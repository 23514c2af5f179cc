"""Settings: one frozen struct read from BILLINGWATCH_*; every fault is reported at once, no secret has a default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from billingwatch.errors import SettingsInvalid

PREFIX = "BILLINGWATCH_"
OPTION_PREFIX = "BILLINGWATCH_CLI_"  # twins of the command line's options


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is started with; field `x` is read from BILLINGWATCH_X."""

    data_dir: Annotated[Path, Meta(description="Where everything that the service keeps is kept")]
    database_url: Annotated[
        Annotated[str, Meta(pattern=r"^postgres(ql)?://")] | None,
        Meta(description="Any PostgreSQL 15–18; unset: the embedded server in the data directory"),
    ] = None
    isolation: Annotated[
        Literal["schema", "row"], Meta(description="schema or row: how a new database keeps tenants apart; it stays that way")
    ] = "schema"
    partitions: Annotated[
        int, Meta(ge=0, le=1024, description="Hash partitions of each table in a new database with row isolation; 0: none")
    ] = 0
    postgres_bin: Annotated[Path | None, Meta(description="Binaries of an installed PostgreSQL for the embedded server")] = None
    secret_key: Annotated[
        str | None, Meta(description="Fernet key (several with commas: the first encrypts); needed with BILLINGWATCH_DATABASE_URL")
    ] = None
    public_url: Annotated[str, Meta(pattern=r"^https?://", description="How Stripe reaches this service; webhook URLs begin with it")] = (
        "http://127.0.0.1:8000"
    )
    rate_limit: Annotated[int, Meta(ge=1, description="Events per second that a tenant may send, sustained")] = 100
    rate_burst_seconds: Annotated[int, Meta(ge=1, le=3600, description="Span over which a burst may use up the sustained rate")] = 10
    connections_limit: Annotated[
        int, Meta(ge=16, le=100_000, description="HTTP connections of one server process; the oldest without a request makes room")
    ] = 4096
    ingest_lanes: Annotated[int, Meta(ge=1, le=64, description="Connections that record events, per process")] = 2
    work_lanes: Annotated[int, Meta(ge=1, le=64, description="Lanes of the processor in the whole fleet; the same for every process")] = 2
    read_lanes: Annotated[int, Meta(ge=1, le=64, description="Connections that serve the API's tenant queries, per process")] = 4
    api_share: Annotated[
        int, Meta(ge=1, le=100, description="Percentage of one read lane's time that a tenant's API calls may take, per process")
    ] = 25
    lane_tenants: Annotated[
        int, Meta(ge=1, description="Distinct tenants after which a lane's connection is replaced, to give back its memory")
    ] = 5000
    queue_limit: Annotated[int, Meta(ge=1, description="Events that may wait for one ingest lane; more get 503")] = 5000
    statement_timeout: Annotated[int, Meta(ge=1, description="Seconds a statement of the service may take")] = 30
    analyst_transaction_minutes: Annotated[
        int, Meta(ge=1, le=1440, description="Minutes after which an analyst's transaction is ended, with its session")
    ] = 15
    analyst_idle_hours: Annotated[int, Meta(ge=1, le=720, description="Hours after which an idle session of an analyst is ended")] = 8
    log_format: Annotated[str, Meta(pattern="^(console|json)$", description="console or json")] = "console"
    log_level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$", description="debug, info, warning or error")] = "info"


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """XDG's data directory; for root /var/lib, because the server runs as another user, who cannot enter /root."""
    if os.geteuid() == 0:
        return Path("/var/lib/billingwatch")
    base = environ.get("XDG_DATA_HOME") or Path(environ.get("HOME") or "~").expanduser() / ".local" / "share"
    return Path(base) / "billingwatch"


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read settings from the environment; raise SettingsInvalid that names every fault."""
    environ = os.environ if environ is None else environ
    given: dict[str, object] = {}
    faults: list[str] = []
    known = {field.name: field for field in msgspec.structs.fields(Settings)}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable.startswith(OPTION_PREFIX) or text == "":
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in known:
            faults.append(f"{variable} is not a setting")
            continue
        try:
            given[name] = msgspec.convert(text, known[name].type, strict=False, dec_hook=_decode_path)
        except msgspec.ValidationError as error:
            faults.append(f"{variable}: {error}")
    if given.get("partitions") and environ.get(f"{PREFIX}ISOLATION", "") in {"", "schema"}:
        faults.append(f"{PREFIX}PARTITIONS is for {PREFIX}ISOLATION=row")
    if faults:
        raise SettingsInvalid(faults="; ".join(faults))
    data_dir = given.pop("data_dir", None) or default_data_dir(environ)
    return Settings(data_dir=Path(str(data_dir)).expanduser().absolute(), **given)  # type: ignore[arg-type]


def _decode_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    raise NotImplementedError(kind)
