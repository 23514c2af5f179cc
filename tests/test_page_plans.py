"""Pages of listings beside 100,000 rows: each reads a bounded part of an index, planned for its parameters or for any."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from billingwatch.detection import store
from billingwatch.ingest import events
from billingwatch.postgres.connections import TenantConnection
from billingwatch.tenancy.tenants import Tenant

ROWS = 100_000
LONGEST = 2_500  # rows that one node of a plan may read for a page: SCAN_LIMIT and some

EVENTS = f"""
INSERT INTO events (
    event_id, type, livemode, occurred_at, received_at, last_received_at, disposition, payload
)
SELECT 'evt_' || n, 'charge.succeeded', true, $1, $1::timestamptz - n * interval '1 minute', $1, 'ignored', '{{}}'
FROM generate_series(1, {ROWS}) AS n
"""
ANOMALIES = f"""
INSERT INTO anomalies (
    anomaly_id, detector, subject, fingerprint, status, severity, summary, opened_at, last_seen_at, detected_at,
    updated_at, amounts, evidence
)
SELECT gen_random_uuid(), 'fraud_spike', 's', 'f' || n, 'open', 'info', 's',
       $1::timestamptz - n * interval '1 minute', $1, $1, $1, '{{}}', '{{}}'
FROM generate_series(1, {ROWS}) AS n
"""


async def plan(tenant: TenantConnection, statement: str, types: str, arguments: str, mode: str) -> str:
    await tenant.execute(f"SET LOCAL plan_cache_mode = {mode}; PREPARE tried ({types}) AS {statement}")
    rows = await tenant.fetch(f"EXPLAIN (ANALYZE, TIMING off, COSTS off) EXECUTE tried ({arguments})")
    await tenant.execute("DEALLOCATE tried")
    return "\n".join(row[0] for row in rows)


def rows_read(text: str) -> int:
    """Return the most rows that a node of the plan returned or discarded."""
    counts = re.findall(r"(?:rows=|Rows Removed by \w+(?: \w+)*: )(\d+)", text)
    return max(int(count) for count in counts)


@pytest.mark.both_isolations
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_page_of_events_reads_a_bounded_part_of_the_index(
    tenant_connection: TenantConnection, tenant: Tenant, now: datetime, mode: str
):
    await fill(tenant_connection, EVENTS, "events", now)
    middle, floor = now - timedelta(minutes=50_000), now - timedelta(minutes=52_000)
    keys = f"'-infinity', 'infinity', '{middle.isoformat()}', 'evt_50000'"

    listed = await plan(
        tenant_connection,
        events.sql["list_events"],
        "int, text, text, timestamptz, timestamptz, timestamptz, text, timestamptz, text, int",
        f"{tenant.tenant_id}, 'nope', NULL, {keys}, '{floor.isoformat()}', 'evt_52000', 50",
        mode,
    )
    found = await plan(
        tenant_connection,
        events.sql["find_scan_floor"],
        "timestamptz, timestamptz, timestamptz, text, int",
        f"{keys}, {events.SCAN_LIMIT - 1}",
        mode,
    )

    for text in (listed, found):
        assert "events_received_at_event_id_idx" in text
        assert rows_read(text) <= LONGEST, text
    assert rows_read(found) == events.SCAN_LIMIT


@pytest.mark.both_isolations
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_page_of_anomalies_reads_a_bounded_part_of_the_index(tenant_connection: TenantConnection, now: datetime, mode: str):
    await fill(tenant_connection, ANOMALIES, "anomalies", now)
    middle, floor = now - timedelta(minutes=50_000), now - timedelta(minutes=52_000)
    last = "ffffffff-ffff-ffff-ffff-ffffffffffff"

    listed = await plan(
        tenant_connection,
        store.sql["list_anomalies"],
        "text, text, text, timestamptz, timestamptz, boolean, boolean, boolean, text[], text[], timestamptz[],"
        " timestamptz[], timestamptz, uuid, timestamptz, uuid, int",
        "'resolved', NULL, NULL, '-infinity', 'infinity', false, NULL, NULL, '{}', '{}', '{}', '{}',"
        f" '{middle.isoformat()}', '{last}', '{floor.isoformat()}', '{last}', 50",
        mode,
    )
    found = await plan(
        tenant_connection,
        store.sql["find_scan_floor"],
        "timestamptz, timestamptz, timestamptz, uuid, int",
        f"'-infinity', 'infinity', '{middle.isoformat()}', '{last}', {store.SCAN_LIMIT - 1}",
        mode,
    )

    for text in (listed, found):
        assert "anomalies_opened_at_anomaly_id_idx" in text
        assert rows_read(text) <= LONGEST, text
    assert rows_read(found) == store.SCAN_LIMIT


async def fill(tenant: TenantConnection, statement: str, table: str, *arguments: Any) -> None:
    role = await tenant.fetchval("SELECT current_user")
    await tenant.execute(statement, *arguments)
    await tenant.execute(f"RESET ROLE; ANALYZE {table}; SET LOCAL ROLE {role}")  # only an owner may analyze
