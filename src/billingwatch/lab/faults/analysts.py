"""Attacks by an analyst: a read-only role of one tenant with a connection to PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from billingwatch.lab.faults.scenario import Scenario, Strike
from billingwatch.lab.faults.scene import AttackOrder, Scene
from billingwatch.tenancy.analysts import analyst_dsn, create_analyst, list_analysts, revoke_analyst
from billingwatch.tenancy.provision import list_tenants


def attack(kind: str) -> Strike:
    """Return a strike that runs an attack as an analyst of the first tenant."""

    @asynccontextmanager
    async def strike(scene: Scene) -> AsyncIterator[None]:
        async with scene.stage.control() as control:
            tenant_id = scene.members[0].tenant_id
            name = next(row.name for row in await list_tenants(control) if row.tenant_id == tenant_id)
            made = await create_analyst(control, name)
        dsn = analyst_dsn(scene.stage.dsn, made.role, made.password)
        try:
            async with scene.attacked(AttackOrder(kind=kind, port=scene.deployment.port, dsn=dsn)):
                yield
        finally:
            async with scene.stage.control() as control:
                if any(row.role == made.role for row in await list_analysts(control)):
                    await revoke_analyst(control, made.role)

    return strike


SCENARIOS = (
    Scenario(
        name="analyst-notify",
        summary="an analyst sends pg_notify on the service's former channel, 500,000 a call, over 2 sessions",
        ready="200",
        strike=attack("notify"),
        measure="deliveries",
        seconds=10,
        quick=2,
    ),
    Scenario(
        name="analyst-snapshot",
        summary="an analyst holds a snapshot open",
        ready="200",
        strike=attack("snapshot"),
        measure="deliveries",
        seconds=15,
    ),
    Scenario(
        name="analyst-queries",
        summary="an analyst sorts and aggregates on 2 sessions without limits",
        ready="200",
        strike=attack("queries"),
        measure="deliveries",
        seconds=15,
    ),
)
