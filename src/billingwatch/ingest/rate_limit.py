"""Rate limits of a tenant: a sustained rate, with bursts up to what the rate admits over a span of seconds.

The rate of signed events holds for all server processes of one `serve`, because they share their buckets.
Each further `serve`, on this host or another, admits the whole rate once more.
"""

from __future__ import annotations

import asyncio
import math
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from billingwatch.errors import RateLimited, SignaturesLimited
from billingwatch.tenancy.buckets import ProcessBuckets
from billingwatch.tenancy.tenants import Tenant

SHARED_TENANTS = 1_048_576  # tenant ids below this one share their buckets between processes: 8 MiB, sparse
EVENT_BYTES = 32 * 1024  # of a body; a larger one counts as several events, because it takes as much of the service
FORGED_PER_SECOND = 10  # deliveries with an invalid signature, per tenant and process; more get 429
FORGED_BURST_SECONDS = 10
FORGED_DELAY = 1.0  # seconds that a 429 to a forged delivery waits, so that a flood over few connections is slow
FORGED_DELAYED = 100  # answers that wait in a process; more are not delayed, because each occupies a connection

_SLOT = 8  # bytes of a double


class Buckets(Protocol):
    """For each tenant the monotonic time at which its bucket will be full again; 0 for a new tenant."""

    def read(self, tenant_id: int) -> float: ...

    def write(self, tenant_id: int, full_at: float, now: float) -> None: ...


class SharedBuckets:
    """Buckets in a file that the server processes of one run map into memory. Their monotonic clock is the same.

    There is no lock. If two processes write one bucket at the same time, one event of the two is not counted.
    Tenants with an id of SHARED_TENANTS or more have a bucket in each process.
    """

    def __init__(self, file: Path) -> None:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, SHARED_TENANTS * _SLOT)  # a file of that size keeps its content
            self._full_at = memoryview(mmap.mmap(descriptor, SHARED_TENANTS * _SLOT)).cast("d")
        finally:
            os.close(descriptor)
        self._others = ProcessBuckets()

    def read(self, tenant_id: int) -> float:
        return self._full_at[tenant_id] if tenant_id < SHARED_TENANTS else self._others.read(tenant_id)

    def write(self, tenant_id: int, full_at: float, now: float) -> None:
        if tenant_id < SHARED_TENANTS:
            self._full_at[tenant_id] = full_at
        else:
            self._others.write(tenant_id, full_at, now)


class RateLimit:
    """A token bucket per tenant for its signed events. Without `buckets` the limit holds for this process."""

    def __init__(
        self,
        *,
        per_second: int,
        burst_seconds: int,
        monotonic: Callable[[], float] = time.monotonic,
        buckets: Buckets | None = None,
    ) -> None:
        self._per_second = per_second
        self._burst_seconds = burst_seconds
        self._monotonic = monotonic
        self._buckets = ProcessBuckets() if buckets is None else buckets

    def admit(self, tenant: Tenant, *, size: int = 0) -> None:
        """Count one event, or one for each EVENT_BYTES of `size` bytes.

        Raises RateLimited, with `retry_after` in whole seconds, when the tenant has used up its rate.
        """
        per_second, events = tenant.rate_limit or self._per_second, max(1, math.ceil(size / EVENT_BYTES))
        over = _take(self._buckets, tenant, per_second, self._burst_seconds, self._monotonic(), events=events)
        if over:
            raise RateLimited(retry_after=over)


class SignatureLimit:
    """A token bucket per tenant for deliveries whose signature is invalid, apart from the one for signed events."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._buckets = ProcessBuckets()
        self._delayed = 0

    async def hold_back(self) -> None:
        """Wait before the answer to a delivery that `admit` refused."""
        if self._delayed >= FORGED_DELAYED:
            return
        self._delayed += 1
        try:
            await asyncio.sleep(FORGED_DELAY)
        finally:
            self._delayed -= 1

    def admit(self, tenant: Tenant) -> None:
        """Count one delivery. Raises SignaturesLimited, with `retry_after` in seconds, when there were too many."""
        over = _take(self._buckets, tenant, FORGED_PER_SECOND, FORGED_BURST_SECONDS, self._monotonic())
        if over:
            raise SignaturesLimited(retry_after=over)


def _take(buckets: Buckets, tenant: Tenant, per_second: int, burst_seconds: int, now: float, *, events: int = 1) -> int:
    """Take events from the tenant's bucket and return 0, or return the seconds until it holds one again.

    A bucket that holds one is enough for any number, so that no bucket is too small for a large event; it owes the rest.
    """
    cost = 1 / per_second
    full_at = max(buckets.read(tenant.tenant_id), now) + cost
    over = full_at - now - burst_seconds
    if over > cost / 2:  # half an event, so that rounding refuses none
        return max(1, math.ceil(over))
    buckets.write(tenant.tenant_id, full_at + (events - 1) * cost, now)
    return 0
