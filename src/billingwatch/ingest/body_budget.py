"""Bytes of large bodies in flight, bounded for the process and for each tenant. Small bodies are not counted."""

from __future__ import annotations

from billingwatch.errors import BodiesFull

SMALL_BODY = 64 * 1024  # bytes; nearly every event of Stripe is smaller
PROCESS_LIMIT = 128 * 1024 * 1024  # bytes of larger bodies at once
TENANT_LIMIT = 32 * 1024 * 1024  # bytes of them at once, for one tenant


class BodyBudget:
    """Counts the bytes of large bodies from their headers to their answers."""

    def __init__(self, *, process_limit: int = PROCESS_LIMIT, tenant_limit: int = TENANT_LIMIT) -> None:
        self._process_limit = process_limit
        self._tenant_limit = tenant_limit
        self._total = 0
        self._tenants: dict[int, int] = {}

    def take(self, tenant_id: int, size: int) -> None:
        """Count a body of `size` bytes. Raises BodiesFull when the tenant or the process has no room for it."""
        of_tenant = self._tenants.get(tenant_id, 0) + size
        if of_tenant > self._tenant_limit or self._total + size > self._process_limit:
            raise BodiesFull
        self._tenants[tenant_id] = of_tenant
        self._total += size

    def give_back(self, tenant_id: int, size: int) -> None:
        """Release what `take` counted."""
        self._total -= size
        left = self._tenants[tenant_id] - size
        if left:
            self._tenants[tenant_id] = left
        else:
            del self._tenants[tenant_id]
