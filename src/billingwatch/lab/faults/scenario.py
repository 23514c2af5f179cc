"""A scenario: one fault, the service that it strikes, and the bounds that the service has to keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from billingwatch.lab.faults.scene import Scene

Layout = Literal["serve", "split", "workers"]
"""serve: one process. split: `serve --no-worker` and `worker`. workers: `serve --workers 2`."""
Need = Literal["embedded", "mount", "schema"]
"""embedded: the bench may stop PostgreSQL. mount: root mounts a tmpfs. schema: each tenant has its tables."""
Measure = Literal["deliveries", "reads"]
"""The latency that an attack must not raise: acknowledgements, or API reads of a tenant on the same lane."""
Output = Literal["file", "pipe"]

Strike = Callable[["Scene"], AbstractAsyncContextManager[None]]
"""Starts the fault on entry, and ends it on exit."""

SILENCE = 15.0  # seconds that a delivery may wait for any answer
RECOVERY = 20.0  # seconds from the end of a fault to the first 200 of /health/ready
READY_WITHIN = 2.0  # seconds that /health/ready may take


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table."""

    name: str
    summary: str
    ready: str  # what /health/ready has to answer
    strike: Strike
    seconds: float  # how long the fault lasts
    quick: float | None = None  # how long with --quick; None: the row is left out
    layout: Layout = "serve"
    output: Output = "file"
    needs: tuple[Need, ...] = ()
    environ: Mapping[str, str] = MappingProxyType({})
    measure: Measure | None = None  # set for attacks
    away: bool = False  # the fault ends the listening process, so connections may be refused
    blind: bool = False  # the service cannot notice the cause, so ready may be 200 while events are refused
    spares: bool = False  # the first tenant alone is hit; the others' events must be acknowledged
    shifted_clock: bool = False
    small_disk: bool = False
    log_on_disk: bool = False  # with `small_disk`: the service's log lies on it, too
    recovery: float = RECOVERY
