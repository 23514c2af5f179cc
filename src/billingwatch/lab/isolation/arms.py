"""The arms: ways to keep tenants apart that the experiment compares."""

from __future__ import annotations

from types import MappingProxyType

import msgspec

from billingwatch.tenancy.isolation import Isolation


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One way. `partitions` are those of each shared table; `pooled` records through a pool of connections instead of lanes."""

    key: str
    title: str
    description: str
    isolation: Isolation
    partitions: int = 0
    pooled: bool = False

    @property
    def data(self) -> tuple[Isolation, int]:
        """Arms with the same data share a database."""
        return self.isolation, self.partitions


LANES = Arm(
    key="schema",
    title="schema per tenant, lanes",
    description="The product as it is: a schema for each tenant, which always runs on the same connection; events of many tenants are committed together.",
    isolation="schema",
)
POOLED = Arm(
    key="pool",
    title="schema per tenant, pool",
    description="What most people build: the same schemas, any of 10 pooled connections, and for each event a transaction with SET LOCAL search_path.",
    isolation="schema",
    pooled=True,
)
ROWS = Arm(
    key="row",
    title="rows, row-level security",
    description="Shared tables: tenant_id leads every key and index, row-level security is forced, batches and lanes as in the product.",
    isolation="row",
)
PARTITIONED = Arm(
    key="partitioned",
    title="rows, hash partitions",
    description="As the rows, each table in 16 hash partitions by tenant_id.",
    isolation="row",
    partitions=16,
)

ARMS = MappingProxyType({arm.key: arm for arm in (LANES, POOLED, ROWS, PARTITIONED)})
