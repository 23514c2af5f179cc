"""Budget: a tenant's calls may take a share of the service's time; what is beyond it is delayed, then refused."""

from __future__ import annotations

import asyncio

import pytest

from billingwatch.errors import CallsExceeded
from billingwatch.tenancy import budget as budget_module
from billingwatch.tenancy.buckets import ProcessBuckets
from billingwatch.tenancy.budget import BURST_SECONDS, CALL_SECONDS, WAIT_LIMIT, Budget

SHARE = 0.25


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budget(clock: Clock) -> Budget:
    return Budget(share=SHARE, monotonic=clock)


async def test_burst_is_admitted_at_once_and_the_next_call_waits(budget: Budget):
    for _ in range(round(BURST_SECONDS / CALL_SECONDS)):
        assert budget.delay(1) <= 0
        await budget.admit(1)

    budget.charge(1, 0.01)
    assert budget.delay(1) == pytest.approx(0.01 / SHARE)


def test_time_refills_the_budget_at_its_share(budget: Budget, clock: Clock):
    budget.charge(1, BURST_SECONDS + 1)
    assert budget.delay(1) == pytest.approx(1 / SHARE)

    clock.now += 3
    assert budget.delay(1) == pytest.approx(1)
    clock.now += 1000
    assert budget.delay(1) == pytest.approx(-BURST_SECONDS / SHARE)  # no more than a burst is saved up


async def test_tenants_have_budgets_of_their_own(budget: Budget):
    budget.charge(1, 100)

    await budget.admit(2)

    assert budget.delay(2) < 0


async def test_call_far_beyond_the_budget_is_refused_with_the_time_to_wait(budget: Budget, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(budget_module, "REFUSAL_PAUSE", 0.01)
    budget.charge(1, BURST_SECONDS + (WAIT_LIMIT + 2.5) * SHARE)
    before = budget.delay(1)

    with pytest.raises(CallsExceeded) as raised:
        await budget.admit(1)

    assert raised.value.facts["retry_after"] == 8
    assert budget.delay(1) == before  # a refused call costs nothing
    clock.now += raised.value.facts["retry_after"]
    await asyncio.wait_for(budget.admit(1), 5)


async def test_delayed_calls_are_spaced_by_their_cost(budget: Budget):
    budget.charge(1, BURST_SECONDS)
    calls = [asyncio.create_task(budget.admit(1)) for _ in range(5)]
    await asyncio.sleep(0)

    assert budget.delay(1) == pytest.approx(5 * CALL_SECONDS / SHARE)
    await asyncio.wait_for(asyncio.gather(*calls), 5)


def test_budgets_that_are_full_again_are_dropped(clock: Clock):
    buckets = ProcessBuckets(limit=100)
    budget = Budget(share=SHARE, monotonic=clock, buckets=buckets)

    for tenant_id in range(1000):
        budget.charge(tenant_id, CALL_SECONDS)
        clock.now += 1

    assert len(buckets) <= 100
