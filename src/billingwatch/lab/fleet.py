"""The tenants of a run, provisioned as every tenant is."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from billingwatch.lab.bodies import Target
from billingwatch.postgres.connections import ControlConnection
from billingwatch.tenancy.provision import provision
from billingwatch.tenancy.sealing import Seal


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant, and how to post to it."""

    tenant_id: int
    schema_name: str
    target: Target


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """All tenants of a run; `seconds` is what provisioning each of them took."""

    members: list[Member]
    seconds: list[float]


async def provision_fleet(control: ControlConnection, seal: Seal, count: int, made: Callable[[int], None]) -> Fleet:
    """Provision `count` tenants, one after the other."""
    members: list[Member] = []
    seconds: list[float] = []
    for number in range(count):
        secret = f"whsec_bench_{number:08}"
        began = time.monotonic()
        tenant = await provision(control, seal, f"bench-{number}", secrets=[secret])
        seconds.append(time.monotonic() - began)
        target = Target(token=tenant.webhook_token, secret=secret)
        members.append(Member(tenant_id=tenant.tenant_id, schema_name=tenant.schema_name, target=target))
        made(number + 1)
    return Fleet(members=members, seconds=seconds)
