"""The rate of a tenant over several server processes, and the bound of forged deliveries."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from billingwatch.errors import RateLimited, SignaturesLimited
from billingwatch.ingest.rate_limit import (
    FORGED_BURST_SECONDS,
    FORGED_DELAYED,
    FORGED_PER_SECOND,
    SHARED_TENANTS,
    RateLimit,
    SharedBuckets,
    SignatureLimit,
)
from billingwatch.tenancy.buckets import ProcessBuckets
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
FAR = msgspec.structs.replace(ACME, tenant_id=TenantId(SHARED_TENANTS), name="far")

PROCESS = """
import sys, msgspec
from pathlib import Path
from billingwatch.errors import RateLimited
from billingwatch.ingest.rate_limit import RateLimit, SharedBuckets
from billingwatch.tenancy.tenants import Tenant, TenantId
acme = Tenant(tenant_id=TenantId(1), name="acme", schema_name="tenant_aaaaaaaaaa", revision="0001", mode="live", status="active",
              rate_limit=None, secrets=())
limit = RateLimit(per_second=1, burst_seconds=3000, buckets=SharedBuckets(Path(sys.argv[1])))
sys.stdin.readline()
admitted = 0
for _ in range(3000):
    try:
        limit.admit(acme)
    except RateLimited:
        continue
    admitted += 1
print(admitted)
"""


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def admitted(limit: RateLimit, tenant: Tenant, attempts: int) -> int:
    count = 0
    for _ in range(attempts):
        try:
            limit.admit(tenant)
        except RateLimited:
            continue
        count += 1
    return count


def test_two_processes_admit_one_rate_together(tmp_path: Path):
    clock = Clock()
    limits = [RateLimit(per_second=10, burst_seconds=2, monotonic=clock, buckets=SharedBuckets(tmp_path / "rate_limits")) for _ in range(2)]

    first = [admitted(limits[number % 2], ACME, 1) for number in range(40)]
    clock.now += 1
    second = [admitted(limits[number % 2], ACME, 1) for number in range(40)]

    assert (sum(first), sum(second)) == (20, 10)


def test_real_processes_share_a_file_and_nearly_every_count(tmp_path: Path):
    """Without a lock two counts of one instant become one, so that a few more events than the rate may pass."""
    command = [sys.executable, "-P", "-c", PROCESS, str(tmp_path / "rate_limits")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()

    counts = [int(process.communicate(timeout=60)[0]) for process in processes]

    assert 3000 <= sum(counts) < 4500  # each alone admits 3,000


def test_buckets_of_a_process_that_starts_later_are_those_of_the_run(tmp_path: Path):
    clock = Clock()
    RateLimit(per_second=10, burst_seconds=2, monotonic=clock, buckets=SharedBuckets(tmp_path / "f")).admit(ACME)

    later = RateLimit(per_second=10, burst_seconds=2, monotonic=clock, buckets=SharedBuckets(tmp_path / "f"))

    assert admitted(later, ACME, 40) == 19
    assert admitted(later, OTHER, 40) == 20


def test_tenant_beyond_the_file_is_limited_per_process(tmp_path: Path):
    limits = [RateLimit(per_second=10, burst_seconds=2, monotonic=Clock(), buckets=SharedBuckets(tmp_path / "f")) for _ in range(2)]

    assert [admitted(limit, FAR, 40) for limit in limits] == [20, 20]


def test_full_buckets_are_dropped_when_there_are_many():
    clock = Clock()
    buckets = ProcessBuckets(limit=100)
    limit = RateLimit(per_second=1, burst_seconds=2, monotonic=clock, buckets=buckets)

    for number in range(1000):
        limit.admit(msgspec.structs.replace(ACME, tenant_id=TenantId(number)))
        clock.now += 0.1

    assert len(buckets) <= 100


def test_buckets_in_use_are_kept_however_many_there_are():
    buckets = ProcessBuckets(limit=100)
    limit = RateLimit(per_second=1, burst_seconds=2, monotonic=Clock(), buckets=buckets)
    tenants = [msgspec.structs.replace(ACME, tenant_id=TenantId(number)) for number in range(300)]

    for tenant in tenants:
        admitted(limit, tenant, 2)

    assert [admitted(limit, tenant, 1) for tenant in tenants] == [0] * 300


def test_forged_deliveries_above_their_rate_are_limited_and_later_not():
    clock = Clock()
    limit = SignatureLimit(monotonic=clock)
    burst = FORGED_PER_SECOND * FORGED_BURST_SECONDS
    for _ in range(burst):
        limit.admit(ACME)

    with pytest.raises(SignaturesLimited) as refused:
        limit.admit(ACME)
    limit.admit(OTHER)
    clock.now += refused.value.facts["retry_after"]
    limit.admit(ACME)


async def test_answers_to_forged_deliveries_are_held_back_up_to_a_bound(monkeypatch):
    monkeypatch.setattr("billingwatch.ingest.rate_limit.FORGED_DELAY", 3600)
    limit = SignatureLimit()
    held = [asyncio.create_task(limit.hold_back()) for _ in range(FORGED_DELAYED)]
    await asyncio.sleep(0)

    async with asyncio.timeout(20):
        await limit.hold_back()
    waiting = [not task.done() for task in held]
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)

    assert waiting == [True] * FORGED_DELAYED
    assert limit._delayed == 0
