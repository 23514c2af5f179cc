"""A rate limit for each tenant: a sustained rate, with bursts up to what it admits over a span of seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from billingwatch.errors import RateLimited
from billingwatch.tenancy.tenants import Tenant


class RateLimit:
    """A token bucket per tenant, kept as the moment at which it will be full again. Each worker process admits its own share."""

    def __init__(self, *, per_second: int, burst_seconds: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst_seconds = burst_seconds
        self._monotonic = monotonic
        self._full_at: dict[int, float] = {}

    def admit(self, tenant: Tenant) -> None:
        """Count one event; raise RateLimited, with `retry_after` in whole seconds, when the tenant has used up its rate."""
        now = self._monotonic()
        cost = 1 / (tenant.rate_limit or self._per_second)
        full_at = max(self._full_at.get(tenant.tenant_id, now), now) + cost
        over = full_at - now - self._burst_seconds
        if over > cost / 2:  # half an event, so that rounding refuses none
            raise RateLimited(retry_after=max(1, math.ceil(over)))
        self._full_at[tenant.tenant_id] = full_at
