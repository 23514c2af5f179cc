"""Budget: how much of the service's time the API calls of one tenant may take.

A call costs the time for which it holds a lane, and CALL_SECONDS for the HTTP work. A call beyond the budget is
delayed. A call that would be delayed by more than WAIT_LIMIT is refused.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from billingwatch.errors import CallsExceeded
from billingwatch.tenancy.buckets import ProcessBuckets

CALL_SECONDS = 0.001  # of the event loop: parse a request, resolve its tenant, encode the answer
BURST_SECONDS = 0.25  # that a tenant may take at once after a pause
WAIT_LIMIT = 5.0  # seconds
REFUSAL_PAUSE = 2.0  # seconds; clients refused at once call again at once, and 40 of them saturate the event loop


class Budget:
    """A bucket of seconds per tenant, kept as the moment at which it is full again; each process has its own.

    `share` is the sustained rate: seconds of cost per second of time.
    """

    def __init__(
        self,
        *,
        share: float,
        monotonic: Callable[[], float] = time.monotonic,
        buckets: ProcessBuckets | None = None,
    ) -> None:
        self._share = share
        self._monotonic = monotonic
        self._buckets = ProcessBuckets() if buckets is None else buckets

    async def admit(self, tenant_id: int) -> None:
        """Charge CALL_SECONDS, and return once the tenant's budget allows the call. Raises CallsExceeded."""
        wait = self.delay(tenant_id)
        if wait > WAIT_LIMIT:
            await asyncio.sleep(REFUSAL_PAUSE)
            raise CallsExceeded(retry_after=math.ceil(wait))
        self.charge(tenant_id, CALL_SECONDS)
        if wait > 0:
            await asyncio.sleep(wait)

    def charge(self, tenant_id: int, seconds: float) -> None:
        """Count the cost of a call."""
        now = self._monotonic()
        self._buckets.write(tenant_id, self._full(tenant_id, now) + seconds / self._share, now)

    def delay(self, tenant_id: int) -> float:
        """Return in how many seconds the budget allows a call; 0 or less: at once."""
        now = self._monotonic()
        return self._full(tenant_id, now) - now - BURST_SECONDS / self._share

    def _full(self, tenant_id: int, now: float) -> float:
        return max(self._buckets.read(tenant_id), now)
