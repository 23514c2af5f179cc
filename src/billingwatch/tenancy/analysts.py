"""Analysts: read-only login roles that see one tenant's tables and views, and nothing of any other tenant.

Every Postgres role can read pg_roles and pg_namespace, and the size of any relation: what keeps tenants unknown to each other's analysts
is that the names there are opaque. In row isolation a policy maps who asks to their tenant; a setting would not do, because every role may set it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import asyncpg
import msgspec
import structlog

from billingwatch.errors import AnalystBusy, AnalystNotFound, AnalystRemains, AnalystsNotPermitted, TenantNotFound
from billingwatch.postgres import migrations
from billingwatch.postgres.connections import ControlConnection
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.isolation import analysts_schema, isolation_of
from billingwatch.tenancy.provision import find_tenant
from billingwatch.tenancy.tenants import TenantId

log = structlog.get_logger()
sql = load_statements(__file__, "analysts.sql")

# By name: a table that comes later, such as one with the tokens of alert channels, stays closed until somebody adds it here.
ANALYST_TABLES = (
    "anomalies",
    "charges",
    "customers",
    "disputes",
    "events",
    "invoices",
    "payment_methods",
    "refunds",
    "states",
    "subscriptions",
)

TRANSACTION_TIMEOUT_SINCE = 17  # major version
SETTINGS = {
    "default_transaction_read_only": "on",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
    "idle_session_timeout": "8h",
    "TimeZone": "UTC",
    "temp_file_limit": "1GB",
}
"""With what a session of an analyst begins, as PostgreSQL spells it."""

ALTER_ATTEMPTS = 20  # at a role that its sessions hold locked; each waits up to 0.5 s
PASSWORD_BYTES = 24  # 192 bits
SCRAM_ITERATIONS = 4096  # PostgreSQL's default; with a random password more would only slow down the login
SCRAM_SALT_BYTES = 16

# What of the service's own DSN says where the server is and how to speak TLS with it; the rest says who the service is.
SHARED_PARAMETERS = frozenset(
    {
        "host",
        "port",
        "sslmode",
        "sslnegotiation",
        "sslrootcert",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "target_session_attrs",
    }
)


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """Something that every role may do in this database, and the SQL by which a superuser stops that."""

    deed: str
    remedy: str


class AnalystCreated(msgspec.Struct, frozen=True, kw_only=True):
    """A new analyst; the password is not stored and cannot be shown again."""

    tenant: str
    schema_name: str
    role: str
    password: str
    open_doors: tuple[Door, ...]
    """What the service's role was not allowed to close."""


class AnalystRow(msgspec.Struct, frozen=True, kw_only=True, rename={"schema_name": "schema"}):
    """An analyst as an operator sees it."""

    role: str
    tenant: str
    schema_name: str
    sessions: int
    created_at: datetime


async def create_analyst(control: ControlConnection, tenant_name: str) -> AnalystCreated:
    """Make a role that reads the tenant's schema: everything, or nothing is left behind. TenantNotFound, AnalystsNotPermitted."""
    role, (password, verifier) = new_role_name(), _new_password()
    with _permission():
        async with control.transaction():
            await control.execute(sql["lock"])
            tenant = await control.fetchrow(sql["tenant"], tenant_name)
            if tenant is None:
                raise TenantNotFound(name=tenant_name)
            open_doors = await secure_database(control)
            await control.execute(await control.fetchval(sql["render_role"], role, verifier))
            await set_defaults(control, role, tenant["schema_name"])
            await control.execute(sql["insert_analyst"], role, tenant["tenant_id"], verifier)
            if isolation_of(tenant["schema_name"]) == "row":
                # Who it is decides what it sees; that it may read is what all analysts have in common.
                await control.execute(await control.fetchval(sql["render_membership"], role, tenant["schema_name"]))
            await regrant(control, tenant["tenant_id"], tenant["schema_name"])
            if not await control.fetchval(sql["may_connect"], role):
                raise AnalystsNotPermitted(reason="it may not grant CONNECT on the database")
    return AnalystCreated(
        tenant=tenant_name, schema_name=analysts_schema(tenant["schema_name"]), role=role, password=password, open_doors=open_doors
    )


async def rotate_analyst(control: ControlConnection, role: str) -> AnalystCreated:
    """Give the role a new password and its defaults, and end its sessions. AnalystNotFound, AnalystsNotPermitted, AnalystBusy."""
    password, verifier = _new_password()
    with _permission():
        async with control.transaction():
            await control.execute(sql["lock"])
            found = await control.fetchrow(sql["analyst"], role)
            if found is None:
                raise AnalystNotFound(role=role)
            await _alter_role(control, role, await control.fetchval(sql["render_password"], role, verifier))
            await set_defaults(control, role, found["schema_name"])
            await control.execute(sql["set_verifier"], role, verifier)
        # After the commit: a client whose session is ended must not get in again with the old password.
        await control.execute(sql["end_sessions"], role)
    return AnalystCreated(
        tenant=found["tenant"], schema_name=analysts_schema(found["schema_name"]), role=role, password=password, open_doors=()
    )


async def _alter_role(control: ControlConnection, role: str, statement: str) -> None:
    """Alter the role in the caller's transaction, and end the role's sessions if they hold it locked.

    An analyst may alter their own role and leave that transaction open, so that the statement would wait for it.
    Raises AnalystBusy.
    """
    await control.execute(sql["limit_lock_wait"])
    failure: asyncpg.PostgresError | None = None
    for _ in range(ALTER_ATTEMPTS):
        try:
            async with control.transaction():
                await control.execute(statement)
        except (asyncpg.LockNotAvailableError, asyncpg.InternalServerError) as error:  # the latter: "tuple concurrently updated"
            failure = error
            await control.execute(sql["end_sessions"], role)
        else:
            await control.execute(sql["unlimit_lock_wait"])
            return
    raise AnalystBusy(role=role) from failure


async def end_readers(control: ControlConnection, schema_name: str) -> None:
    """End the sessions of analysts that hold a lock on the schema's tables or on the views over them."""
    for row in await control.fetch(sql["end_readers"], [schema_name, analysts_schema(schema_name)]):
        log.warning("analysts.session_ended", pid=row["pid"], role=row["role"], reason="migration")


async def list_analysts(control: ControlConnection, tenant_name: str | None = None) -> list[AnalystRow]:
    """All analysts, or a tenant's. TenantNotFound."""
    if tenant_name is not None:
        await find_tenant(control, tenant_name)
    rows = await control.fetch(sql["list_analysts"], tenant_name)
    return [AnalystRow(**{**row, "schema_name": analysts_schema(row["schema_name"])}) for row in rows]


async def revoke_analyst(control: ControlConnection, role: str) -> None:
    """Shut the role out, end its sessions, drop it. What fails on the way can be done again.

    Raises AnalystNotFound, AnalystsNotPermitted, AnalystRemains, AnalystBusy.
    """
    with _permission():
        # Committed by itself: a client whose session is ended must not get in again before the role is dropped.
        async with control.transaction():
            await control.execute(sql["lock"])
            if not await control.fetchval(sql["is_analyst"], role):
                raise AnalystNotFound(role=role)
            shut: str | None = await control.fetchval(sql["render_shut"], role)
            if shut is not None:
                await _alter_role(control, role, shut)
        try:
            async with control.transaction():
                await control.execute(sql["lock"])
                if shut is not None:
                    await control.execute(sql["end_sessions"], role)
                    await control.execute(await control.fetchval(sql["render_drop"], role))
                await control.execute(sql["delete_analyst"], role)
        except asyncpg.DependentObjectsStillExistError as error:  # It made something in another database of the server.
            raise AnalystRemains(role=role, reason=error.detail or str(error)) from error


async def regrant(control: ControlConnection, tenant_id: TenantId, schema_name: str) -> None:
    """Let the tenant's analysts read its tables and views; to be repeated when these were created again.

    In row isolation nothing is granted: analysts read views, which a migration of the shared tables grants.
    """
    if isolation_of(schema_name) == "row":
        return
    roles = [row["role_name"] for row in await control.fetch(sql["roles_of_tenant"], tenant_id)]
    if roles:
        await let_read(control, schema_name, roles)


async def let_read(control: ControlConnection, schema_name: str, roles: Sequence[str]) -> None:
    """Grant roles what analysts read in a schema."""
    await control.execute(await control.fetchval(sql["render_grants"], schema_name, roles, [*ANALYST_TABLES, *migrations.views()]))


def defaults(schema_name: str, *, major: int) -> dict[str, str]:
    """Return the settings of an analyst's role on a server of that major version."""
    timed = {"transaction_timeout": "15min"} if major >= TRANSACTION_TIMEOUT_SINCE else {}
    return {"search_path": analysts_schema(schema_name), **SETTINGS, **timed}


async def set_defaults(control: ControlConnection, role: str, schema_name: str) -> None:
    """Give the role the settings of an analyst, and no others."""
    wanted = defaults(schema_name, major=control.get_server_version().major)
    await control.execute(await control.fetchval(sql["render_settings"], role, list(wanted), list(wanted.values())))


async def secure_database(control: ControlConnection) -> tuple[Door, ...]:
    """Take from PUBLIC what an analyst could do harm with. Returns what is left, for want of rights; nothing to do the second time."""
    is_superuser = await control.fetchval(sql["is_superuser"])
    for door in await control.fetch(sql["open_doors"]):
        # Without the right to do so, both are warnings and do nothing, except where only a superuser has it.
        if is_superuser or not door["superusers_only"]:
            await control.execute(f"{door['keep']}; {door['close']}")
    return tuple(Door(deed=door["deed"], remedy=f"{door['keep']}; {door['close']};") for door in await control.fetch(sql["open_doors"]))


def _new_password() -> tuple[str, str]:
    """Return a password and what PostgreSQL stores of it."""
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    return password, scram_verifier(password, secrets.token_bytes(SCRAM_SALT_BYTES))


def new_role_name() -> str:
    return "analyst_" + base64.b32encode(secrets.token_bytes(10)).decode().lower()[:10]


def scram_verifier(password: str, salt: bytes) -> str:
    """What PostgreSQL stores of an ASCII password; made here, so that no log or statistics of the server ever see the password."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, SCRAM_ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${SCRAM_ITERATIONS}:{_base64(salt)}${_base64(stored_key)}:{_base64(server_key)}"


def analyst_dsn(service_dsn: str, role: str, password: str) -> str:
    """The service's DSN with an analyst's name and password: same server, same database, same TLS, in a form that libpq reads too."""
    service = urlsplit(service_dsn)
    parameters = dict(parse_qsl(service.query))
    user, _, address = service.netloc.rpartition("@")
    named = service.path.lstrip("/") or quote(parameters.get("dbname") or parameters.get("database") or "", safe="")
    database = named or user.partition(":")[0]
    query = urlencode({name: value for name, value in parameters.items() if name in SHARED_PARAMETERS}, quote_via=quote)
    return urlunsplit(("postgresql", f"{quote(role, safe='')}:{quote(password, safe='')}@{address}", f"/{database}", query, ""))


@contextmanager
def _permission() -> Iterator[None]:
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        raise AnalystsNotPermitted(reason=str(error)) from error


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
