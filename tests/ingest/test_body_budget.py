"""Bytes of large bodies in flight, for the process and for each tenant."""

from __future__ import annotations

import pytest

from billingwatch.errors import BodiesFull
from billingwatch.ingest.body_budget import BodyBudget


def test_tenant_above_its_share_is_refused_and_others_are_not():
    budget = BodyBudget(process_limit=100, tenant_limit=30)
    budget.take(1, 20)

    with pytest.raises(BodiesFull):
        budget.take(1, 11)
    budget.take(1, 10)
    budget.take(2, 30)


def test_process_above_its_bound_refuses_every_tenant():
    budget = BodyBudget(process_limit=50, tenant_limit=30)
    budget.take(1, 30)

    with pytest.raises(BodiesFull):
        budget.take(2, 21)
    budget.give_back(1, 30)
    budget.take(2, 21)


def test_released_bytes_leave_no_tenant_behind():
    budget = BodyBudget()
    for tenant_id in range(1000):
        budget.take(tenant_id, 100)
        budget.give_back(tenant_id, 100)

    assert (budget._tenants, budget._total) == ({}, 0)
