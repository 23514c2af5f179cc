"""The dimensions, in the order in which they are measured: those that leave traces come last."""

from __future__ import annotations

from types import MappingProxyType

from billingwatch.lab.isolation.dimensions import (
    analyst,
    blast,
    broken,
    catalog,
    connect,
    dump,
    ingest,
    memory,
    migration,
    neighbour,
    overview,
    planning,
    processing,
    provision,
    roles,
    rotation,
    transfer,
    upkeep,
)

DIMENSIONS = MappingProxyType(
    {
        module.DIMENSION.key: module.DIMENSION
        for module in (
            catalog,
            connect,
            planning,
            rotation,
            memory,
            analyst,
            overview,
            roles,
            blast,
            ingest,
            processing,
            neighbour,
            provision,
            migration,
            broken,
            transfer,
            dump,
            upkeep,
        )
    }
)
