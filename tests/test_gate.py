"""A gate spreads a flood over turns of the event loop, and holds up nobody who does not pass it."""

from __future__ import annotations

import asyncio

from billingwatch.gate import Gate


async def test_gate_lets_few_requests_pass_in_a_turn():
    gate, passed, most = Gate(per_turn=2), 0, 0

    async def request() -> None:
        nonlocal passed
        await gate.enter()
        passed += 1

    requests = [asyncio.create_task(request()) for _ in range(100)]
    while not all(each.done() for each in requests):
        before = passed
        await asyncio.sleep(0)
        most = max(most, passed - before)

    assert passed == 100
    assert 1 <= most <= 2


async def test_request_that_is_cancelled_at_the_gate_leaves_its_place():
    gate = Gate(per_turn=1)
    gone = [asyncio.create_task(gate.enter()) for _ in range(20)]
    await asyncio.sleep(0)

    for each in gone:
        each.cancel()
    await asyncio.gather(*gone, return_exceptions=True)

    async with asyncio.timeout(5):
        await gate.enter()
