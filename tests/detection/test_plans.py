"""What a visit costs beside 200,000 charges: no detector reads a whole table, planned for its parameters or for any."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from billingwatch.detection import engine
from billingwatch.detection.registry import DETECTORS
from billingwatch.postgres.connections import TenantConnection

from .history import DAY, LATER, NOON, History, at, charge, dispute, failed, subscription, unpaid, warning

# Eight weeks before NOON: a charge every 24 seconds, one in twenty declined and some of those tried again, an invoice for every second
# charge, a dispute or a warning about one in four hundred, a refund of one in forty, and of every customer the first charges. Thirty
# thousand subscriptions renew monthly; one in fifty ends, one in fifty has changed its plan. One invoice in twenty was left unpaid, three
# times each.
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
    """
    INSERT INTO states (object_id, version, kind, account, created_at, event_id, facts)
    SELECT 'sub_' || n % 30000, CASE WHEN n % 50 = 7 AND n > 30000 THEN '2' ELSE '1' END || lpad(n::text, 8, '0'), 'subscription', NULL,
           $1::timestamptz - (60001 - n) * interval '80.64 s', 'evt_sub_' || n, jsonb_build_object(
               'customer_id', 'cus_' || n % 20000, 'status', CASE WHEN n % 50 = 7 AND n > 30000 THEN 'canceled' ELSE 'active' END,
               'currency', 'usd', 'mrr', CASE WHEN n % 50 = 8 AND n > 30000 THEN 500 ELSE 1000 END, 'cancel_at_period_end', false,
               'items', jsonb_build_array(jsonb_build_object(
                   'item_id', 'si_' || n % 30000, 'price_id', 'price_1', 'unit_amount', 1000, 'quantity', 1, 'interval', 'month',
                   'interval_count', 1, 'usage_type', 'licensed', 'period_start', 1700000000, 'period_end', 1700000000)))
    FROM generate_series(1, 60000) AS n
    """,
    """
    INSERT INTO states (object_id, version, kind, account, created_at, event_id, facts)
    SELECT 'in_' || n % 5000 * 20, '1' || lpad(n::text, 8, '0'), 'invoice', NULL, $1::timestamptz - (15001 - n) * interval '322.56 s',
           'evt_in_' || n, jsonb_build_object(
               'status', 'open', 'collection_method', 'charge_automatically', 'currency', 'usd', 'amount_remaining', 1000, 'attempt_count', 1 + n / 5000,
               'next_payment_attempt_at', CASE WHEN n % 3 > 0 THEN $1::timestamptz + interval '3 days' END)
    FROM generate_series(1, 15000) AS n
    """,
    "ANALYZE charges, invoices, disputes, refunds, states",
)


SCAN = r"Seq Scan on (charges|invoices|disputes|refunds|subscriptions|states)"
# The charges alone fill about 5,000 blocks; a question by key touches four.
BLOCKS_MAX = 5_000
# What is judged once an hour may read the weeks before; the states of eight fill about as many.
HOURLY_BLOCKS_MAX = 10_000


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
    fewer = [subscription("fewer", -DAY, snapshot=1 + i, updated=i - 2, mrr=1000 - 500 * i) for i in range(2)]
    await eight_weeks.see(*burst, *twins, *fraud, *fewer, unpaid("unpaid", -DAY, updated=0))
    names, number = tuple(DETECTORS), len(DETECTORS)

    assert {anomaly.detector for anomaly in await eight_weeks.anomalies()} == {
        "charge_failure_spike",
        "dispute_opened",
        "duplicate_charge",
        "payment_recovery",
        "plan_downgrade",
    }
    asked = [list(range(number)), list(names), [at(-1)] * number, [at(60)] * number, [timedelta(minutes=10)] * number]
    async for plan in plans(tenant, engine._stirred_statement(names), *asked):
        assert not re.search(SCAN, plan)
        assert blocks(plan) < BLOCKS_MAX
    for name, detector in DETECTORS.items():
        arguments = detector.parameters(detector.thresholds())
        async for plan in plans(tenant, detector.incidents, at(-1), LATER, *arguments):
            assert not re.search(SCAN, plan), name
            assert blocks(plan) < (BLOCKS_MAX if detector.every is None else HOURLY_BLOCKS_MAX), name
        async for plan in plans(tenant, detector.incidents, NOON - timedelta(days=1), NOON, *arguments):
            assert not re.search(SCAN, plan), name
