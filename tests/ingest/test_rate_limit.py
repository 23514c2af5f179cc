"""A tenant may send so many events a second, in bursts of so many seconds' worth; and none pays for another."""

from __future__ import annotations

import msgspec
import pytest

from billingwatch.errors import RateLimited
from billingwatch.ingest.rate_limit import EVENT_BYTES, RateLimit
from billingwatch.tenancy.tenants import Tenant, TenantId

ACME = Tenant(
    tenant_id=TenantId(1),
    name="acme",
    schema_name="tenant_aaaaaaaaaa",
    revision="0001",
    mode="live",
    status="active",
    rate_limit=None,
    secrets=(),
)
OTHER = msgspec.structs.replace(ACME, tenant_id=TenantId(2), name="other")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def admitted(rate_limit: RateLimit, tenant: Tenant, attempts: int) -> int:
    count = 0
    for _ in range(attempts):
        try:
            rate_limit.admit(tenant)
        except RateLimited:
            continue
        count += 1
    return count


def test_a_burst_may_use_up_the_rate_of_its_span_at_once_and_no_more(clock):
    rate_limit = RateLimit(per_second=100, burst_seconds=10, monotonic=clock)

    assert admitted(rate_limit, ACME, 1500) == 1000


def test_who_keeps_to_the_rate_is_never_refused(clock):
    rate_limit = RateLimit(per_second=10, burst_seconds=3, monotonic=clock)

    for _ in range(600):
        rate_limit.admit(ACME)
        clock.now += 0.1

    assert admitted(rate_limit, ACME, 1) == 1


def test_who_sends_far_above_the_rate_gets_the_rate(clock):
    rate_limit = RateLimit(per_second=10, burst_seconds=5, monotonic=clock)

    count = 0
    for _ in range(1000):
        count += admitted(rate_limit, ACME, 5)
        clock.now += 0.1

    # 100 seconds at 10 a second, and one burst.
    assert 1000 <= count <= 1000 + 50


@pytest.mark.parametrize(("per_second", "burst_seconds"), [(1, 1), (100, 10), (3, 60), (5000, 1)])
def test_a_refusal_tells_after_how_many_whole_seconds_to_come_again(clock, per_second, burst_seconds):
    rate_limit = RateLimit(per_second=per_second, burst_seconds=burst_seconds, monotonic=clock)
    clock.now += 0.3
    admitted(rate_limit, ACME, per_second * burst_seconds)

    with pytest.raises(RateLimited) as refused:
        rate_limit.admit(ACME)
    retry_after = refused.value.facts["retry_after"]
    clock.now += retry_after

    assert isinstance(retry_after, int)
    assert 1 <= retry_after <= burst_seconds
    rate_limit.admit(ACME)


def test_a_tenant_that_is_refused_takes_nothing_from_another(clock):
    rate_limit = RateLimit(per_second=5, burst_seconds=2, monotonic=clock)
    admitted(rate_limit, ACME, 100)

    assert admitted(rate_limit, ACME, 1) == 0
    assert admitted(rate_limit, OTHER, 100) == 10


def test_a_tenants_own_rate_goes_before_the_services(clock):
    rate_limit = RateLimit(per_second=5, burst_seconds=2, monotonic=clock)

    assert admitted(rate_limit, msgspec.structs.replace(ACME, rate_limit=50), 200) == 100
    assert admitted(rate_limit, msgspec.structs.replace(OTHER, rate_limit=1), 200) == 2


def test_after_a_quiet_while_a_whole_burst_is_admitted_again(clock):
    rate_limit = RateLimit(per_second=10, burst_seconds=4, monotonic=clock)
    admitted(rate_limit, ACME, 100)

    clock.now += 8

    assert admitted(rate_limit, ACME, 100) == 40


def test_the_clock_may_stand_still_and_its_fractions_refuse_nobody(clock):
    rate_limit = RateLimit(per_second=7, burst_seconds=3, monotonic=clock)
    clock.now = 0.1 + 0.2

    assert admitted(rate_limit, ACME, 100) == 21


def test_large_event_counts_as_one_event_for_each_32_kib(clock):
    rate_limit = RateLimit(per_second=100, burst_seconds=1, monotonic=clock)

    rate_limit.admit(ACME, size=99 * EVENT_BYTES)

    assert admitted(rate_limit, ACME, 10) == 1


def test_event_larger_than_the_whole_burst_is_admitted_and_paid_off_later(clock):
    rate_limit = RateLimit(per_second=1, burst_seconds=1, monotonic=clock)

    rate_limit.admit(ACME, size=32 * EVENT_BYTES)

    with pytest.raises(RateLimited) as refused:
        rate_limit.admit(ACME)
    assert refused.value.facts["retry_after"] == 32
    clock.now += 32
    rate_limit.admit(ACME)
