"""What a visit costs beside 200,000 charges: no detector reads a whole table, planned for its parameters or for any."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from billingwatch.detection import engine
from billingwatch.detection.registry import DETECTORS
from billingwatch.postgres.connections import TenantConnection

from .history import LATER, NOON, History, at, charge, dispute, failed, refund, warning

# Eight weeks before NOON: a charge every 24 seconds, one in twenty declined and some of those tried again, an invoice for every second
# charge, a dispute or a warning about one in four hundred, a refund of one in forty, and of every customer the first charges.
EIGHT_WEEKS = (
    """
    INSERT INTO charges (
        charge_id, payment_id, from_invoice, customer_id, payer, amount, amount_captured, amount_refunded, currency, status, captured, disputed,
        decline_code, outcome_type, payment_method_type, card_fingerprint, created_at, updated_at, event_id, version
    )
    SELECT 'ch_' || n, 'pi_' || CASE WHEN n % 40 = 13 THEN n - 6 ELSE n END, false, 'cus_' || n % 20000,
           'cus_' || n % 20000, 500 + n * 7919 % 10000, 0, 0, 'usd',
           CASE WHEN n % 20 = 7 THEN 'failed' ELSE 'succeeded' END, n % 20 <> 7, false,
           CASE WHEN n % 20 = 7 THEN 'insufficient_funds' END, 'authorized', 'card', 'fp_' || n % 20000,
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
    INSERT INTO refunds (refund_id, charge_id, amount, currency, status, created_at, updated_at, event_id, version)
    SELECT 're_' || n, 'ch_' || n * 40, 500 + n * 7919 % 10000, 'usd', 'succeeded', $1::timestamptz - (5001 - n) * interval '967.68 s', $1,
           'evt_re_' || n, '1'
    FROM generate_series(1, 5000) AS n
    """,
    """
    INSERT INTO states (object_id, version, kind, created_at, event_id, facts)
    SELECT 'cus_' || n % 20000 || ' usd', to_char($1::timestamptz - (200001 - n) * interval '24.192 s', 'YYYY-MM-DD HH24:MI:SS') || ' ch_' || n,
           'first_charge', $1::timestamptz - (200001 - n) * interval '24.192 s', 'evt_' || n,
           jsonb_build_object('charge_id', 'ch_' || n, 'customer_id', 'cus_' || n % 20000, 'currency', 'usd')
    FROM generate_series(1, 100000) AS n
    """,
    "ANALYZE charges, invoices, disputes, refunds, states",
)


SCAN = r"Seq Scan on (charges|invoices|disputes|refunds|states)"
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
    tried = [failed(f"tried_{i}", -20 + i / 5, card_fingerprint=f"fp_{i % 3}", amount=100) for i in range(60)]
    moved = [charge("moved", -4, customer_id="cus_7", currency="eur")]
    back = [refund(f"back_{i}", -600 + i, of=charge(f"{i * 41}"), amount=90_000) for i in range(250)]
    await eight_weeks.see(*burst, *twins, *fraud, *tried, *moved, *back)
    names = tuple(DETECTORS)

    assert {anomaly.detector for anomaly in await eight_weeks.anomalies()} == {
        "card_testing",
        "charge_failure_spike",
        "currency_mismatch",
        "duplicate_charge",
        "large_refund",
        "refund_spike",
    }
    asked = [list(range(4)), list(names), [at(-1)] * 4, [at(60)] * 4, [timedelta(minutes=10)] * 4]
    async for plan in plans(tenant, engine._stirred_statement(names), *asked):
        assert not re.search(SCAN, plan)
        assert blocks(plan) < BLOCKS_MAX
    for name, detector in DETECTORS.items():
        arguments = detector.parameters(detector.thresholds())
        async for plan in plans(tenant, detector.incidents, at(-1), LATER, *arguments):
            assert not re.search(SCAN, plan), name
            assert blocks(plan) < BLOCKS_MAX, name
        async for plan in plans(tenant, detector.incidents, NOON - timedelta(days=1), NOON, *arguments):
            assert not re.search(SCAN, plan), name
