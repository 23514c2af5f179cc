"""The tenants of a run, provisioned as every tenant is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

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
    api_key: str = ""


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """All tenants of a run, in the order in which they came to be; `times` are seconds from the first one's beginning to each one's end."""

    members: list[Member]
    times: list[float]

    @property
    def seconds_each(self) -> float:
        """What a tenant took, sustained over the whole fleet."""
        return self.times[-1] / len(self.times)

    @property
    def slowing(self) -> float:
        """Time that the last tenth took, over the first tenth's."""
        tenth = max(len(self.times) // 10, 1)
        return (self.times[-1] - ([0.0, *self.times])[-1 - tenth]) / self.times[tenth - 1]


async def provision_fleet(controls: Sequence[ControlConnection], seal: Seal, count: int, made: Callable[[int], None]) -> Fleet:
    """Provision `count` tenants, one after the other on each of the connections."""
    members: list[Member] = []
    times: list[float] = []
    numbers = iter(range(count))
    began = time.monotonic()

    async def work(control: ControlConnection) -> None:
        for number in numbers:
            secret = f"whsec_bench_{number:08}"
            tenant = await provision(control, seal, f"bench-{number}", secrets=[secret])
            times.append(time.monotonic() - began)
            target = Target(token=tenant.webhook_token, secret=secret)
            members.append(
                Member(
                    tenant_id=tenant.tenant_id,
                    schema_name=tenant.schema_name,
                    target=target,
                    api_key=tenant.api_key,
                )
            )
            made(len(members))

    await asyncio.gather(*(work(control) for control in controls))
    return Fleet(members=members, times=times)
