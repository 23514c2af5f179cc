"""What a visit costs beside 200,000 charges: no detector reads a whole table, planned for its parameters or for any."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from billingwatch.detection import engine
from billingwatch.detection.registry import DETECTORS
from billingwatch.postgres.connections import TenantConnection

from .history import DAY, LATER, NOON, History, at, charge, dispute, failed, invoice, warning
from .renewals import item, line, subscription

# Eight weeks before NOON: a charge every 24 seconds, one in twenty declined and some of those tried again, an invoice for every second
# charge, for the four weeks that follow, and the state of its subscription; a dispute or a warning about one in four hundred.
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
    INSERT INTO invoices (
        invoice_id, subscription_id, status, total, subtotal, billing_reason, currency, payment_ids, lines, created_at, finalized_at,
        updated_at, event_id, version
    )
    SELECT 'in_' || n, 'sub_' || n % 50000, 'paid', 1000, 1000, 'subscription_cycle', 'usd', ARRAY['pi_' || 2 * n],
           jsonb_build_array(jsonb_build_object(
               'subscription_item_id', 'si_' || n % 50000, 'amount', 1000, 'quantity', 1, 'proration', false, 'listed_all', true,
               'discounted', false, 'period_start', starts, 'period_end', starts + 28 * 86400
           )),
           to_timestamp(starts), to_timestamp(starts + 3600), $1, 'evt_in_' || n, '1'
    FROM generate_series(1, 100000) AS n
    CROSS JOIN LATERAL (SELECT (extract(epoch FROM $1::timestamptz) - (100001 - n) * 48.384)::bigint AS starts) AS period
    """,
    """
    INSERT INTO states (object_id, version, kind, created_at, event_id, facts)
    SELECT 'sub_' || n % 50000, '1' || lpad(n::text, 12, '0'), 'subscription', to_timestamp(starts), 'evt_sub_' || n, jsonb_build_object(
               'customer_id', 'cus_' || n % 50000, 'status', 'active', 'currency', 'usd', 'collection_paused', false, 'discounted', false,
               'cancel_at_period_end', false, 'billing_cycle_anchor_at', $1::timestamptz, 'items', jsonb_build_array(jsonb_build_object(
                   'item_id', 'si_' || n % 50000, 'amount', 1000, 'quantity', 1, 'interval', 'month', 'interval_count', 1,
                   'usage_type', 'licensed', 'period_start', starts, 'period_end', starts + 28 * 86400
               ))
           )
    FROM generate_series(1, 100000) AS n
    CROSS JOIN LATERAL (SELECT (extract(epoch FROM $1::timestamptz) - (100001 - n) * 48.384)::bigint AS starts) AS period
    """,
    """
    INSERT INTO disputes (dispute_id, kind, charge_id, amount, currency, reason, status, created_at, updated_at, event_id, version)
    SELECT 'dp_' || n, CASE WHEN n % 3 = 0 THEN 'early_fraud_warning' ELSE 'dispute' END, 'ch_' || n * 400, 500, 'usd', 'fraudulent',
           'needs_response', $1::timestamptz - (501 - n) * interval '160 min', $1, 'evt_dp_' || n, '1'
    FROM generate_series(1, 500) AS n
    """,
    "ANALYZE charges, invoices, disputes, states",
)


SCAN = r"Seq Scan on (charges|invoices|disputes|refunds|states|subscriptions)"
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
    renewals = [
        invoice(f"renewal_{i}", 0, subscription_id="sub_7", lines=[line(0, 28 * DAY, 1500 * i + 500, item_id="si_7")]) for i in range(2)
    ]
    await eight_weeks.see(*burst, *twins, *fraud, *renewals, subscription("7", 0, item(0, 28 * DAY, item_id="si_7")))
    names = tuple(DETECTORS)

    assert {anomaly.detector for anomaly in await eight_weeks.anomalies()} == {
        "charge_failure_spike",
        "double_invoice",
        "duplicate_charge",
        "invoice_mismatch",
    }
    count = len(names)
    quiet = [detector.quiet(detector.thresholds()) for detector in DETECTORS.values()]
    asked = [list(range(count)), list(names), [at(-1)] * count, [at(60)] * count, quiet]
    async for plan in plans(tenant, engine._stirred_statement(names), *asked):
        assert not re.search(SCAN, plan)
        assert blocks(plan) < BLOCKS_MAX
    for name, detector in DETECTORS.items():
        arguments = detector.parameters(detector.thresholds())
        # Of time, an hour is judged at once.
        async for plan in plans(tenant, detector.incidents, at(-1), LATER if detector.every is None else at(60), *arguments):
            assert not re.search(SCAN, plan), name
            assert blocks(plan) < BLOCKS_MAX, name
        async for plan in plans(tenant, detector.incidents, NOON - timedelta(days=1), NOON, *arguments):
            assert not re.search(SCAN, plan), name
