"""Turns: tenants share lanes round robin, each runs one call at a time, and a busy lane's tenant uses a free one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from billingwatch.errors import CallsExceeded, LanesBusy
from billingwatch.tenancy.lanes import Lane, Lanes
from billingwatch.tenancy.turns import Turns

MakeTurns = Callable[..., Turns]


@pytest.fixture
async def make_turns(database: str) -> AsyncIterator[MakeTurns]:
    """Turns over a number of lanes, which are closed after the test."""
    made: list[Lanes] = []

    def make(count: int, **limits: Any) -> Turns:
        made.append(Lanes(lambda number: Lane(database, f"lane {number}"), count))
        return Turns(made[-1], **limits)

    yield make
    for lanes in made:
        await lanes.close()


async def steps(count: int = 5) -> None:
    """Let every task run until it waits."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_tenants_take_turns_however_many_calls_each_has(make_turns: MakeTurns):
    turns = make_turns(1)
    order: list[int] = []

    async def call(tenant_id: int) -> None:
        async with turns.lane_of(tenant_id):
            order.append(tenant_id)
            await asyncio.sleep(0)

    await asyncio.gather(*(call(tenant_id) for tenant_id in [1, 1, 1, 1, 1, 2, 2, 3]))

    assert order == [1, 2, 3, 1, 2, 1, 1, 1]
    assert turns.waiting == 0


async def test_tenant_runs_one_call_at_a_time_on_many_lanes(make_turns: MakeTurns):
    turns = make_turns(4)
    running: list[int] = []
    most = 0

    async def call() -> None:
        nonlocal most
        async with turns.lane_of(1) as lane, lane.hold() as connection:
            running.append(1)
            most = max(most, len(running))
            await connection.execute("SELECT pg_sleep(0.001)")
            running.pop()

    await asyncio.gather(*(call() for _ in range(8)))

    assert most == 1


async def test_tenant_whose_lane_is_busy_runs_on_the_next_free_lane(make_turns: MakeTurns):
    turns = make_turns(3)

    async with turns.lane_of(1) as own:
        async with turns.lane_of(4) as next_one, turns.lane_of(7) as last:
            names = [own.name, next_one.name, last.name]
        async with turns.lane_of(3) as another:
            names.append(another.name)
    async with turns.lane_of(4) as free_again:
        names.append(free_again.name)

    assert names == ["lane 1", "lane 2", "lane 0", "lane 0", "lane 1"]


async def test_call_that_waits_too_long_is_refused_and_leaves_no_trace(make_turns: MakeTurns):
    turns = make_turns(1, wait_limit=0.05)

    async with turns.lane_of(1):
        with pytest.raises(LanesBusy, match=r"no database connection became free within 0\.05 seconds"):
            async with turns.lane_of(2):
                pytest.fail("the only lane is held")

    async with turns.lane_of(2) as lane:
        assert lane.name == "lane 0"
    assert turns.waiting == 0


async def test_tenant_over_its_budget_rests_between_calls_and_others_do_not(make_turns: MakeTurns):
    rests = {1: 0.05}
    turns = make_turns(1, rest=lambda tenant_id: rests.get(tenant_id, 0.0))
    order: list[int] = []

    async def call(tenant_id: int) -> None:
        async with turns.lane_of(tenant_id):
            order.append(tenant_id)

    resting = [asyncio.create_task(call(1)) for _ in range(2)]
    await steps()
    others = [asyncio.create_task(call(2)) for _ in range(5)]
    await asyncio.gather(*others)
    began_before_rest_ended = list(order)
    await asyncio.gather(*resting)

    assert began_before_rest_ended == [1, 2, 2, 2, 2, 2]
    assert order[-1] == 1


async def test_call_that_waits_for_its_own_tenant_is_refused_as_too_many(make_turns: MakeTurns):
    turns = make_turns(2, wait_limit=0.05)

    async with turns.lane_of(1):
        with pytest.raises(CallsExceeded):
            async with turns.lane_of(1):
                pytest.fail("a tenant runs one call at a time")


async def test_tenant_with_a_full_queue_is_refused_and_others_are_not(make_turns: MakeTurns):
    turns = make_turns(1, queue_limit=2)

    async def call(tenant_id: int) -> int:
        async with turns.lane_of(tenant_id):
            return tenant_id

    async with turns.lane_of(1):
        waiting = [asyncio.create_task(call(1)) for _ in range(2)]
        await steps()
        with pytest.raises(CallsExceeded) as raised:
            await call(1)
        other = asyncio.create_task(call(2))

    assert await asyncio.gather(*waiting, other) == [1, 1, 2]
    assert raised.value.facts["retry_after"] == 1


async def test_cancelled_calls_do_not_fill_the_tenants_queue(make_turns: MakeTurns):
    turns = make_turns(1, queue_limit=2)

    async def call() -> int:
        async with turns.lane_of(1):
            return 1

    async with turns.lane_of(1):
        gone = [asyncio.create_task(call()) for _ in range(2)]
        await steps()
        for task in gone:
            task.cancel()
        await steps()
        waiting = [asyncio.create_task(call()) for _ in range(2)]
        await steps()

    assert await asyncio.gather(*waiting) == [1, 1]


async def test_call_cancelled_while_it_waits_gives_up_its_place(make_turns: MakeTurns):
    turns = make_turns(1)
    served: list[int] = []

    async def call(number: int) -> None:
        async with turns.lane_of(1):
            served.append(number)

    async with turns.lane_of(2):
        calls = [asyncio.create_task(call(number)) for number in range(3)]
        await steps()
        calls[0].cancel()
        calls[1].cancel()
    await asyncio.gather(*calls, return_exceptions=True)

    assert served == [2]
    assert turns.waiting == 0


async def test_call_cancelled_in_the_step_of_its_turn_gives_the_lane_back(make_turns: MakeTurns):
    turns = make_turns(1)

    async def call() -> None:
        async with turns.lane_of(1):
            pytest.fail("it was cancelled")

    async with turns.lane_of(2):
        waiting = asyncio.create_task(call())
        await steps()
    waiting.cancel()  # its turn has come, but it has not run yet
    await asyncio.gather(waiting, return_exceptions=True)

    assert waiting.cancelled()
    async with asyncio.timeout(5), turns.lane_of(3) as lane:
        assert lane.name == "lane 0"


async def test_random_cancellations_lose_no_lane_and_no_turn(make_turns: MakeTurns):
    turns = make_turns(3, wait_limit=0.002)
    rng = random.Random(7)
    active: dict[int, str] = {}

    async def call(tenant_id: int, seconds: float) -> None:
        async with turns.lane_of(tenant_id) as lane:
            assert tenant_id not in active
            assert lane.name not in active.values()
            active[tenant_id] = lane.name
            try:
                await asyncio.sleep(seconds)
            finally:
                del active[tenant_id]

    tasks = []
    for _ in range(1500):
        tasks.append(asyncio.create_task(call(rng.randrange(8), rng.choice([0, 0, 0.0005, 0.002]))))
        if rng.random() < 0.3:
            await asyncio.sleep(0)
        if rng.random() < 0.4:
            rng.choice(tasks).cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert [each for each in outcomes if isinstance(each, AssertionError)] == []
    assert any(isinstance(each, LanesBusy) for each in outcomes)
    assert any(each is None for each in outcomes)
    assert (turns.waiting, active) == (0, {})
    async with asyncio.timeout(5), turns.lane_of(1) as one, turns.lane_of(2) as two, turns.lane_of(3) as three:
        assert {one.name, two.name, three.name} == {"lane 0", "lane 1", "lane 2"}
