"""Turns: which tenant's call runs next on a group of lanes.

Guarantees: a tenant runs one call at a time. Waiting tenants take turns, however many calls each of them has.
A tenant whose own lane is busy runs on a free lane. Do not take a turn while holding one: the tenant has only one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from billingwatch.errors import CallsExceeded, LanesBusy
from billingwatch.tenancy.lanes import Lane, Lanes, lane_number

RETRY_AFTER = 1  # seconds; returned with a refusal because the tenant's queue is full


class Turns:
    """Shares lanes between tenants, round robin.

    `wait_limit` is in seconds, `queue_limit` in calls of one tenant. `rest` returns how many seconds a tenant pauses
    after a call.
    """

    def __init__(
        self,
        lanes: Lanes,
        *,
        wait_limit: float = 6.0,
        queue_limit: int = 1000,
        rest: Callable[[int], float] = lambda _: 0.0,
    ) -> None:
        self._lanes = lanes.lanes
        self._wait_limit = wait_limit
        self._queue_limit = queue_limit
        self._rest = rest
        self._free = set(range(len(self._lanes)))
        self._running: set[int] = set()  # tenants that run a call or rest after one
        # Waiting calls by tenant; the first tenant has the next turn.
        self._queues: OrderedDict[int, deque[asyncio.Future[int]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Calls that wait for a lane."""
        return sum(not turn.done() for queue in self._queues.values() for turn in queue)

    @asynccontextmanager
    async def lane_of(self, tenant_id: int) -> AsyncIterator[Lane]:
        """Hold one of the lanes for a tenant. Raises CallsExceeded, LanesBusy."""
        number = await self._take(tenant_id)
        try:
            yield self._lanes[number]
        finally:
            self._give_back(tenant_id, number)

    async def _take(self, tenant_id: int) -> int:
        queue = self._queues.setdefault(tenant_id, deque())
        if len(queue) >= self._queue_limit:
            raise CallsExceeded(retry_after=RETRY_AFTER)
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._dispatch()
        try:
            async with asyncio.timeout(None if turn.done() else self._wait_limit):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                # The turn came in the same step as the cancellation or the timeout.
                self._give_back(tenant_id, turn.result())
            elif turn in queue:
                queue.remove(turn)  # so that a call nobody waits for takes no place
            if not isinstance(error, TimeoutError):
                raise
            if tenant_id in self._running:
                raise CallsExceeded(retry_after=RETRY_AFTER) from None
            raise LanesBusy(seconds=self._wait_limit) from None

    def _give_back(self, tenant_id: int, number: int) -> None:
        self._free.add(number)
        rest = self._rest(tenant_id)
        if rest > 0:
            asyncio.get_running_loop().call_later(min(rest, self._wait_limit), self._end_rest, tenant_id)
            self._dispatch()
        else:
            self._end_rest(tenant_id)

    def _end_rest(self, tenant_id: int) -> None:
        self._running.discard(tenant_id)
        if tenant_id in self._queues:
            self._queues.move_to_end(tenant_id)  # behind tenants that arrived during its call
        self._dispatch()

    def _dispatch(self) -> None:
        for tenant_id in list(self._queues):
            if not self._free:
                return
            if tenant_id in self._running:
                continue
            queue = self._queues[tenant_id]
            while queue and queue[0].done():  # cancelled in this step of the event loop
                del queue[0]
            if queue:
                number, turn = self._nearest_free(tenant_id), queue.popleft()
                self._free.remove(number)
                self._running.add(tenant_id)
                turn.set_result(number)
            if queue:
                self._queues.move_to_end(tenant_id)
            else:
                del self._queues[tenant_id]

    def _nearest_free(self, tenant_id: int) -> int:
        """Return the tenant's own lane, else the next free one, so that few backends cache its metadata."""
        count = len(self._lanes)
        own = lane_number(tenant_id, count)
        return min(self._free, key=lambda number: (number - own) % count)
