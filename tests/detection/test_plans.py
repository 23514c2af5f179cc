"""What a visit costs beside 200,000 charges: no detector reads a whole table, planned for its parameters or for any."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from billingwatch.detection import engine
from billingwatch.detection.looks import EPOCH
from billingwatch.detection.registry import DETECTORS
from billingwatch.postgres.connections import TenantConnection

from . import renewals
from .history import DAY, LATER, NOON, History, at, charge, dispute, failed, invoice, subscription, unpaid, warning
from .renewals import line

# Eight weeks before NOON: a charge and its event every 24 seconds, one in twenty declined and some of those tried again; a dispute or a
# warning about one in four hundred, a refund of one in forty, and of every customer the first charges. Fifty thousand subscriptions renew
# every four weeks, with an invoice and a state each time; one in fifty has ended since, one in fifty costs less. One invoice in twenty was
# left unpaid, three times each. Five thousand cards.
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
    INSERT INTO states (object_id, version, kind, created_at, event_id, facts)
    SELECT 'sub_' || n % 50000, CASE WHEN ends THEN '2' ELSE '1' END || lpad(n::text, 12, '0'), 'subscription', to_timestamp(starts),
           'evt_sub_' || n, jsonb_build_object(
               'customer_id', 'cus_' || n % 50000, 'status', CASE WHEN ends THEN 'canceled' ELSE 'active' END, 'currency', 'usd',
               'mrr', CASE WHEN n % 50 = 8 AND n > 50000 THEN 500 ELSE 1000 END, 'collection_paused', false, 'discounted', false,
               'cancel_at_period_end', false, 'billing_cycle_anchor_at', $1::timestamptz, 'period_end_at', to_timestamp(starts + 28 * 86400),
               'items', jsonb_build_array(jsonb_build_object(
                   'item_id', 'si_' || n % 50000, 'price_id', 'price_1', 'unit_amount', 1000, 'amount', 1000, 'quantity', 1,
                   'interval', 'month', 'interval_count', 1, 'usage_type', 'licensed',
                   'period_start', starts, 'period_end', starts + 28 * 86400
               ))
           )
    FROM generate_series(1, 100000) AS n
    CROSS JOIN LATERAL (
        SELECT (extract(epoch FROM $1::timestamptz) - (100001 - n) * 48.384)::bigint AS starts, n % 50 = 7 AND n > 50000 AS ends
    ) AS period
    """,
    """
    INSERT INTO subscriptions (
        subscription_id, customer_id, status, items, mrr, currency, period_end_at, cancel_at_period_end, collection_paused, discounted,
        created_at, updated_at, event_id, version
    )
    SELECT DISTINCT ON (s.object_id) s.object_id, sub.customer_id, sub.status, sub.items, sub.mrr, sub.currency, sub.period_end_at,
           sub.cancel_at_period_end, sub.collection_paused, sub.discounted, s.created_at, s.created_at, s.event_id, s.version
    FROM states AS s CROSS JOIN LATERAL jsonb_populate_record(NULL::subscriptions, s.facts) AS sub
    WHERE s.kind = 'subscription'
    ORDER BY s.object_id, s.version DESC
    """,
    """
    INSERT INTO states (object_id, version, kind, created_at, event_id, facts)
    SELECT 'pm_' || n, '1', 'payment_method', $1::timestamptz - n * interval '16 min', 'evt_pm_' || n,
           jsonb_build_object('customer_id', 'cus_' || n, 'card_exp_month', 3 + n % 9, 'card_exp_year', 2026 + n % 4)
    FROM generate_series(1, 5000) AS n
    UNION ALL
    SELECT 'cus_' || n, '1', 'customer', $1::timestamptz - n * interval '16 min', 'evt_cus_' || n,
           jsonb_build_object('default_payment_method_id', 'pm_' || n)
    FROM generate_series(1, 5000) AS n
    """,
    """
    INSERT INTO events (
        event_id, type, livemode, occurred_at, signed_at, received_at, last_received_at, deliveries, disposition, payload
    )
    SELECT 'evt_' || n, 'charge.succeeded', true, e.at, e.at, e.at, e.at, 1 + (n % 500 = 0)::int, 'process', '{}'
    FROM generate_series(1, 200000) AS n CROSS JOIN LATERAL (SELECT $1::timestamptz - (200001 - n) * interval '24.192 s' AS at) AS e
    """,
    """
    INSERT INTO states (object_id, version, kind, account, created_at, event_id, facts)
    SELECT 'in_' || n % 5000 * 20, '1' || lpad(n::text, 8, '0'), 'invoice', NULL, $1::timestamptz - (15001 - n) * interval '322.56 s',
           'evt_in_' || n, jsonb_build_object(
               'status', 'open', 'collection_method', 'charge_automatically', 'currency', 'usd', 'amount_remaining', 1000, 'attempt_count', 1 + n / 5000,
               'next_payment_attempt_at', CASE WHEN n % 3 > 0 THEN $1::timestamptz + interval '3 days' END)
    FROM generate_series(1, 15000) AS n
    """,
)
TABLES = "charges, invoices, disputes, refunds, subscriptions, states, events"


SCAN = r"Seq Scan on (charges|customers|disputes|events|invoices|payment_methods|refunds|states|subscriptions)"
# The charges alone fill about 5,000 blocks; a question by key touches four.
BLOCKS_MAX = 5_000
BLOCKS_MAX_OF = {
    # Once a day the cards that expire are joined to all subscriptions: no index finds those of a customer.
    "card_expiry": 7_500,
    # Where enough ended within a week, ends are picked from all states of eight weeks, by index; those fill about as many.
    "churn_spike": 12_500,
}
SCANS = {"card_expiry": {"subscriptions"}}


@pytest.fixture
async def eight_weeks(history: History, tenant_connection: TenantConnection) -> History:
    # Only an owner may truncate and analyze.
    role = await tenant_connection.fetchval("SELECT current_user")
    # What other tests rolled back still lies in the tables and their indexes, and would be read.
    await tenant_connection.execute(f"RESET ROLE; TRUNCATE {TABLES}; SET LOCAL ROLE {role}")
    for statement in EIGHT_WEEKS:
        await tenant_connection.execute(statement, *([NOON] if "$1" in statement else []))
    await tenant_connection.execute(f"RESET ROLE; ANALYZE {TABLES}; SET LOCAL ROLE {role}")
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


@pytest.mark.both_isolations
async def test_beside_eight_weeks_of_charges_a_visit_reads_only_what_it_needs(eight_weeks: History):
    tenant = eight_weeks.tenant
    burst = [failed(f"burst_{i}", -30 + i / 2) for i in range(60)]
    twins = [charge(f"twin_{i}", -5 + i, customer_id="cus_twin") for i in range(2)]
    fraud = [(warning if i % 2 else dispute)(f"fraud_{i}", -i, charge_id=f"ch_{i * 400 + 1}") for i in range(3)]
    fewer = [subscription("fewer", -DAY, snapshot=1 + i, updated=i - 2, mrr=1000 - 500 * i) for i in range(2)]
    billed_twice = [
        invoice(f"renewal_{i}", 0, subscription_id="sub_7", lines=[line(0, 28 * DAY, 1500 * i + 500, item_id="si_7")]) for i in range(2)
    ]
    renewed = renewals.subscription("7", 0, renewals.item(0, 28 * DAY, item_id="si_7"))
    await eight_weeks.see(*burst, *twins, *fraud, *fewer, unpaid("unpaid", -DAY, updated=0), *billed_twice, renewed)
    names, number = tuple(DETECTORS), len(DETECTORS)

    assert {anomaly.detector for anomaly in await eight_weeks.anomalies()} == {
        "charge_failure_spike",
        "dispute_opened",
        "double_invoice",
        "duplicate_charge",
        "invoice_mismatch",
        "payment_recovery",
        "plan_downgrade",
    }
    quiet = [detector.quiet(detector.thresholds()) for detector in DETECTORS.values()]
    asked = [list(range(number)), list(names), [at(-1)] * number, [at(60)] * number, quiet]
    async for plan in plans(tenant, engine._stirred_statement(names), *asked):
        assert not re.search(SCAN, plan), plan
        assert blocks(plan) < BLOCKS_MAX, plan
    for name, detector in DETECTORS.items():
        arguments, scans = detector.parameters(detector.thresholds()), SCANS.get(name, set())
        since, until = at(-1), LATER
        if detector.every is not None:
            # No instant is judged before its time: the last that is.
            since = until = NOON - (NOON - EPOCH) % detector.every
        async for plan in plans(tenant, detector.incidents, since, until, *arguments):
            assert set(re.findall(SCAN, plan)) <= scans, f"{name}: {plan}"
            assert blocks(plan) < BLOCKS_MAX_OF.get(name, BLOCKS_MAX), f"{name}: {plan}"
        async for plan in plans(tenant, detector.incidents, NOON - timedelta(days=1), NOON, *arguments):
            assert set(re.findall(SCAN, plan)) <= scans, f"{name}: {plan}"
