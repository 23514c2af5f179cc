"""Buckets of tenants in the memory of one process, for limits on a rate."""

from __future__ import annotations

BUCKETS_LIMIT = 50_000  # buckets before those that are full again are dropped


class ProcessBuckets:
    """For each tenant the time at which its bucket will be full again.

    Full buckets are dropped when there are many, because a new bucket is full too.
    """

    def __init__(self, *, limit: int = BUCKETS_LIMIT) -> None:
        self._limit = limit
        self._full_at: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def read(self, tenant_id: int) -> float:
        return self._full_at.get(tenant_id, 0.0)

    def write(self, tenant_id: int, full_at: float, now: float) -> None:
        self._full_at[tenant_id] = full_at
        if len(self._full_at) > self._limit:
            self._full_at = {key: moment for key, moment in self._full_at.items() if moment > now}
            # As many buckets in use: the limit grows, so that not every event sweeps them.
            self._limit = max(self._limit, 2 * len(self._full_at))
