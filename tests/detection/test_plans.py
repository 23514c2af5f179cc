"""What a visit costs beside 200,000 charges: no detector reads a whole table, planned for its parameters or for any."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from billingwatch.detection import engine
from billingwatch.detection.registry import DETECTORS
from billingwatch.postgres.connections import TenantConnection

from .history import LATER, NOON, History, at, charge, dispute, failed, warning

# Eight weeks before NOON: a charge every 24 seconds, one in twenty declined and some of those tried again, an invoice for every second
# charge, a dispute or a warning about one in four hundred.
EIGHT_WEEKS = (
    """
    INSERT INTO charges (
        charge_id, payment_id, from_invoice, payer, amount, amount_captured, amount_refunded, currency, status, captured, disputed,
        decline_code, outcome_type, payment_method_type, created_at, updated_at, event_id, version
    )
    SELECT 'ch_' || n, 'pi_' || CASE WHEN n % 40 = 13 THEN n - 6 ELSE n END, false, 'cus_' || n % 20000, 500 + n * 7919 % 10000, 0, 0, 'usd',
           CASE WHEN n % 20 = 7 THEN 'failed' ELSE 'succeeded' END, n % 20 <> 7, false,
           CASE WHEN n % 20 = 7 THEN 'insufficient_funds' END, 'authorized', 'card',
           $1::timestamptz - (200001 - n) * interval '24.192 s', $1, 'evt_' || n, '1'
    FROM generate_series(1, 200000) AS n
    """,
    """
    INSERT INTO invoices (invoice_id, status, total, billing_reason, currency, payment_ids, created_at, updated_at, event_id, version)
    SELECT 'in_' || n, 'paid', 1000, 'subscription_cycle', 'usd', ARRAY['pi_' || 2 * n], $1::timestamptz - (100001 - n) * interval '48.384 s',
           $1, 'evt_in_' || n, '1'
    FROM generate_series(1, 100000) AS n
    """,
    """
    INSERT INTO disputes (dispute_id, kind, charge_id, amount, currency, reason, status, created_at, updated_at, event_id, version)
    SELECT 'dp_' || n, CASE WHEN n % 3 = 0 THEN 'early_fraud_warning' ELSE 'dispute' END, 'ch_' || n * 400, 500, 'usd', 'fraudulent',
           'needs_response', $1::timestamptz - (501 - n) * interval '160 min', $1, 'evt_dp_' || n, '1'
    FROM generate_series(1, 500) AS n
    """,
    """
    INSERT INTO events (
        event_id, type, livemode, occurred_at, signed_at, received_at, last_received_at, deliveries, disposition, payload
    )
    SELECT 'evt_' || n, 'charge.succeeded', true, e.at, e.at, e.at, e.at, 1 + (n % 500 = 0)::int, 'process', '{}'
    FROM generate_series(1, 200000) AS n CROSS JOIN LATERAL (SELECT $1::timestamptz - (200001 - n) * interval '24.192 s' AS at) AS e
    """,
    """
    INSERT INTO subscriptions (
        subscription_id, customer_id, status, items, mrr, currency, period_end_at, cancel_at_period_end, collection_paused, discounted,
        created_at, updated_at, event_id, version
    )
    SELECT 'sub_' || n, 'cus_' || n, 'active', '[]', 1000, 'usd', $1::timestamptz + interval '31 days', false, false, false, $1, $1, 'evt', '1'
    FROM generate_series(1, 5000) AS n
    """,
    """
    INSERT INTO states (object_id, version, kind, created_at, event_id, facts)
    SELECT 'pm_' || n, '1', 'payment_method', $1::timestamptz - interval '1 day', 'evt',
           jsonb_build_object('customer_id', 'cus_' || n, 'card_exp_month', 3 + n % 9, 'card_exp_year', 2026 + n % 4)
    FROM generate_series(1, 5000) AS n
    UNION ALL
    SELECT 'cus_' || n, '1', 'customer', $1::timestamptz - interval '1 day', 'evt', jsonb_build_object('default_payment_method_id', 'pm_' || n)
    FROM generate_series(1, 5000) AS n
    UNION ALL
    SELECT sub.subscription_id, m::text, 'subscription', $1::timestamptz - m * interval '1 day', 'evt', to_jsonb(sub)
    FROM subscriptions AS sub CROSS JOIN generate_series(1, 9) AS m
    """,
    "ANALYZE charges, invoices, disputes, events, subscriptions, states",
)


SCAN = r"Seq Scan on (charges|invoices|disputes|refunds|events|states)"
# The charges alone fill about 5,000 blocks; a question by key touches four.
BLOCKS_MAX = 5_000


@pytest.fixture
async def eight_weeks(history: History, tenant_connection: TenantConnection) -> History:
    for statement in EIGHT_WEEKS:
        await tenant_connection.execute(statement, *([NOON] if "$1" in statement else []))
    return history


def literal(value: object) -> str:
    match value:
        case datetime():
            return f"timestamptz '{value.isoformat()}'"
        case timedelta():
            return f"interval '{value.total_seconds()} s'"
        case tuple() | list():
            return f"ARRAY[{', '.join(literal(each) for each in value)}]"
        case str():
            return f"'{value}'"
        case _:
            return str(value)


async def plans(tenant: TenantConnection, statement: str, *arguments: object) -> AsyncIterator[str]:
    """Planned for these arguments, and for any."""
    await tenant.execute(f"PREPARE tried AS {statement}")
    for mode in ("force_custom_plan", "force_generic_plan"):
        await tenant.execute(f"SET LOCAL plan_cache_mode = {mode}")
        rows = await tenant.fetch(f"EXPLAIN (ANALYZE, BUFFERS, TIMING off, COSTS off) EXECUTE tried ({', '.join(map(literal, arguments))})")
        yield "\n".join(row[0] for row in rows)
    await tenant.execute("DEALLOCATE tried")


def blocks(plan: str) -> int:
    """Blocks touched by the whole plan: its topmost node says so first."""
    found = re.search(r"Buffers: shared(?: hit=(\d+))?(?: read=(\d+))?", plan)
    return sum(int(number) for number in found.groups(default="0"))


async def test_beside_eight_weeks_of_charges_a_visit_reads_only_what_it_needs(eight_weeks: History):
    tenant = eight_weeks.tenant
    burst = [failed(f"burst_{i}", -30 + i / 2) for i in range(60)]
    twins = [charge(f"twin_{i}", -5 + i, customer_id="cus_twin") for i in range(2)]
    fraud = [(warning if i % 2 else dispute)(f"fraud_{i}", -i, charge_id=f"ch_{i * 400 + 1}") for i in range(3)]
    await eight_weeks.see(*burst, *twins, *fraud)
    names = tuple(DETECTORS)

    assert {anomaly.detector for anomaly in await eight_weeks.anomalies()} == {"charge_failure_spike", "duplicate_charge"}
    looks = len(names)
    asked = [list(range(looks)), list(names), [at(-1)] * looks, [at(60)] * looks, [timedelta(minutes=10)] * looks]
    async for plan in plans(tenant, engine._stirred_statement(names), *asked):
        assert not re.search(SCAN, plan), plan
        assert blocks(plan) < BLOCKS_MAX, plan
    for name, detector in DETECTORS.items():
        arguments = detector.parameters(detector.thresholds())
        # No instant of a grid is judged before its time.
        since, until = (NOON, NOON) if detector.every else (at(-1), LATER)
        async for plan in plans(tenant, detector.incidents, since, until, *arguments):
            assert not re.search(SCAN, plan), name
            assert blocks(plan) < BLOCKS_MAX, name
        async for plan in plans(tenant, detector.incidents, NOON - timedelta(days=1), NOON, *arguments):
            assert not re.search(SCAN, plan), name
