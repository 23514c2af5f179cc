"""The seam between the two isolations: where a tenant's rows lie, and what opens its scope there.

`schema`: each tenant has a schema of its own, and the path says whose tables a statement means. `row`: all tenants share one schema, and
row-level security lets a statement see one tenant's rows. The product's statements are the same text in both, and nothing else asks which
it is: a tenant's schema name tells.
"""

from __future__ import annotations

import base64
import re
import secrets
from typing import Literal, Protocol

Isolation = Literal["schema", "row"]

_SCHEMA_NAME = re.compile(r"tenants?_[a-z2-7]{10}")
_SHARED = "tenants_"


class Placed(Protocol):
    """A tenant, as far as its scope must know it."""

    @property
    def tenant_id(self) -> int: ...

    @property
    def schema_name(self) -> str: ...


def isolation_of(schema_name: str) -> Isolation:
    """Whether a schema is a tenant's own or the one of all tenants."""
    return "row" if schema_name.startswith(_SHARED) else "schema"


def entrance(tenant: Placed) -> str:
    """The SELECT that makes a transaction the tenant's, until it ends."""
    schema_name = checked_schema_name(tenant.schema_name)
    if isolation_of(schema_name) == "schema":
        return f"SELECT pg_catalog.set_config('search_path', '{schema_name}', true)"
    # The role binds those whom row-level security would not: superusers, and roles with BYPASSRLS.
    return (
        f"SELECT pg_catalog.set_config('search_path', '{schema_name}', true),"
        f" pg_catalog.set_config('billingwatch.tenant', '{tenant.tenant_id:d}', true),"
        f" pg_catalog.set_config('role', '{schema_name}', true)"
    )


def analysts_schema(schema_name: str) -> str:
    """Return the schema that a tenant's analysts read: the tenant's own, or that of the views over the shared tables."""
    return schema_name if isolation_of(schema_name) == "schema" else f"{schema_name}_analysts"


def checked_schema_name(name: str) -> str:
    """Return `name` if it has the form that provisioning gives; anything else never reaches SQL text."""
    if not _SCHEMA_NAME.fullmatch(name):
        message = f"not the name of a tenant schema: {name!r}"
        raise ValueError(message)
    return name


def new_schema_name() -> str:
    """Of one tenant's schema."""
    return f"tenant_{_opaque()}"


def new_shared_schema_name() -> str:
    """Of the one that all tenants share."""
    return f"{_SHARED}{_opaque()}"


def _opaque() -> str:
    return base64.b32encode(secrets.token_bytes(10)).decode().lower()[:10]
