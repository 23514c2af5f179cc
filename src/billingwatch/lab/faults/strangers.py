"""Attacks over HTTP: by strangers, by holders of a webhook URL, and by a tenant with a valid API key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from billingwatch.clock import utc_now
from billingwatch.lab.faults.scenario import Scenario, Strike
from billingwatch.lab.faults.scene import AttackOrder, Scene
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.scope import tenant_scope

sql = load_statements(__file__, "strangers.sql")

HISTORY = 39_000  # events of the tenant that floods the API


def attack(kind: str) -> Strike:
    """Return a strike that runs an attack against the first tenant's webhook URL."""

    @asynccontextmanager
    async def strike(scene: Scene) -> AsyncIterator[None]:
        path = f"/webhook/{scene.members[0].target.token}"
        async with scene.attacked(AttackOrder(kind=kind, port=scene.deployment.port, path=path)):
            yield

    return strike


@asynccontextmanager
async def flood_reads(scene: Scene) -> AsyncIterator[None]:
    """Let the first tenant, which has 39,000 events, filter them over 40 connections."""
    async with scene.stage.control() as control, tenant_scope(control, scene.members[0]) as tenant:
        await tenant.execute(sql["insert_history"], HISTORY, utc_now())
    order = AttackOrder(
        kind="reads",
        port=scene.deployment.port,
        path="/events?type=nope",
        key=scene.members[0].api_key,
    )
    async with scene.attacked(order):
        yield


SCENARIOS = (
    Scenario(
        name="endless-header",
        summary="one connection sends a header of 100 MiB",
        ready="200",
        strike=attack("endless-header"),
        measure="deliveries",
        seconds=10,
        quick=2,
    ),
    Scenario(
        name="slow-bodies",
        summary="400 connections send bodies of 1 MiB, one byte a second, to a known URL",
        ready="200",
        strike=attack("slow-bodies"),
        measure="deliveries",
        seconds=15,
    ),
    Scenario(
        name="idle-connections",
        summary="2,000 connections send nothing, 2,000 more send half a header",
        ready="200",
        strike=attack("idle"),
        measure="deliveries",
        seconds=20,
    ),
    Scenario(
        name="unsigned-flood",
        summary="6 connections post unsigned events to a known URL at full speed",
        ready="200",
        strike=attack("unsigned"),
        measure="deliveries",
        seconds=10,
        quick=2,
    ),
    Scenario(
        name="bad-key-flood",
        summary="6 connections read the API with a key that does not exist, at full speed",
        ready="200",
        strike=attack("bad-key"),
        measure="deliveries",
        seconds=10,
    ),
    Scenario(
        name="api-flood",
        summary="one tenant filters 39,000 events over 40 connections; p50: reads of a tenant on its lane",
        ready="200",
        strike=flood_reads,
        measure="reads",
        seconds=10,
    ),
)
