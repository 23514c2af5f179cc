"""What refunds are worth: a failed one returns nothing, nor does the release of what was never captured, in any order of events."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from billingwatch.billing.readers import read_event
from billingwatch.billing.store import project
from billingwatch.postgres.connections import TenantConnection

from .payloads import NOW, Json, charge, event, listed, refund
from .tables import contents, only_row

LEGACY = {"api_version": "2019-05-16"}
BASIL = {"api_version": "2025-03-31.basil"}


def told(kind: str, inside: Json, second: int, **envelope: Any) -> Json:
    return event(kind, inside, event_id=f"evt_{second:02d}", created=NOW + second, **envelope)


async def after(tenant: TenantConnection, events: tuple[Json, ...]) -> tuple[Json, list[bool]]:
    """Return the charge and whether each refund is a release, after one event at a time."""
    await tenant.execute("SAVEPOINT empty")
    for one in events:
        await project(tenant, read_event(one))
    found = await only_row(tenant, "charges"), [row["released"] for row in await contents(tenant, "refunds")]
    await tenant.execute("ROLLBACK TO SAVEPOINT empty")
    return found


async def test_refund_that_fails_after_the_snapshot_returns_nothing(tenant_connection: TenantConnection):
    history = (
        told("charge.succeeded", charge(), 0),
        told("charge.refunded", charge(amount_refunded=500), 10),
        told("refund.created", refund(amount=500, created=NOW + 10), 10),
        told("charge.refund.updated", refund(amount=500, created=NOW + 10, status="failed"), 20),
    )
    for order in permutations(history):
        row, _ = await after(tenant_connection, order)
        assert (row["amount_refunded"], row["refunds_failed"]) == (500, 500)


async def test_newer_snapshot_that_excludes_the_failed_refund_counts_alone(tenant_connection: TenantConnection):
    history = (
        told("charge.refunded", charge(amount_refunded=500), 10),
        told("charge.refund.updated", refund(amount=500, created=NOW + 10, status="failed"), 20),
        told("charge.updated", charge(amount_refunded=0), 30),
    )
    for order in permutations(history):
        row, _ = await after(tenant_connection, order)
        assert (row["amount_refunded"], row["refunds_failed"]) == (0, 0)


async def test_first_refund_of_the_uncaptured_rest_is_a_release(tenant_connection: TenantConnection):
    rest, later = refund("re_1", amount=500, created=NOW + 10), refund("re_2", amount=500, created=NOW + 20)
    captured = {"amount": 2000, "amount_captured": 1500}
    history = (
        told("charge.succeeded", charge(captured=False, amount_captured=0), 0, **LEGACY),
        told("charge.captured", charge(**captured, amount_refunded=500, refunds=listed(rest)), 10, **LEGACY),
        told("charge.refunded", charge(**captured, amount_refunded=1000, refunds=listed(later, rest)), 20, **LEGACY),
    )
    for order in permutations(history):
        row, released = await after(tenant_connection, order)
        assert (row["amount_refunded"], row["amount_released"]) == (500, 500)
        assert released == [True, False]


@pytest.mark.parametrize(("version", "released"), [(LEGACY, [True]), (BASIL, [False])])
async def test_refund_of_the_amount_not_captured_depends_on_the_version(
    tenant_connection: TenantConnection, version: dict[str, str], released: list[bool]
):
    returned = told("refund.created", refund(amount=500, created=NOW + 10), 10, **version)
    captured = told("charge.captured", charge(amount=1000, amount_captured=500, amount_refunded=500), 10, **version)

    for order in permutations((returned, captured)):
        _, found = await after(tenant_connection, order)
        assert found == released


async def test_capture_that_is_told_late_makes_a_refund_real(tenant_connection: TenantConnection):
    history = (
        told("charge.succeeded", charge(captured=False, amount_captured=0), 0),
        told("refund.created", refund(amount=500, created=NOW + 10), 10),
        told("charge.captured", charge(), 5),
    )
    for order in permutations(history):
        _, released = await after(tenant_connection, order)
        assert released == [False]
