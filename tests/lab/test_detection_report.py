"""The report end to end, tiny: streams go through a real database, and what was put into them is found."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import msgspec
import pytest

from billingwatch.lab.quality.live import live
from billingwatch.lab.quality.measure import measure
from billingwatch.lab.quality.plan import Stream
from billingwatch.lab.quality.report import Report, Wish, detection_report
from billingwatch.settings import Settings
from billingwatch.simulate.deliveries import Delivery, deliver
from billingwatch.simulate.incidents.scenes import Incident
from billingwatch.simulate.profiles import PROFILES
from billingwatch.simulate.stream import simulate
from billingwatch.tenancy.sealing import Seal

START = datetime(2026, 1, 5, tzinfo=UTC)


def instant(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)


async def test_an_incident_is_found_by_the_product_and_by_the_plain_rule(database: str, seal: Seal, connect):
    wish = Incident(name="duplicate_charge", at=START + timedelta(days=5, hours=12), strength=1.0)
    stream = Stream(kind="saas", seed=3, shape="current", start=START, days=7, incidents=(wish,))
    days: list[int] = []

    measured = await measure(stream, database, seal, lambda: days.append(1))

    (truth,) = [truth for truth in measured.truths if truth.detector == "duplicate_charge"]
    for alarms in (measured.ours, measured.plain):
        assert any(alarm.detector == "duplicate_charge" and alarm.objects & truth.objects for alarm in alarms)
    (found,) = [alarm for alarm in measured.ours if alarm.detector == "duplicate_charge"]
    assert 0 <= found.detected_at - truth.arrived_at < 15 * 60
    assert measured.dead == 0
    assert len(days) == 7
    schemas = await (await connect()).fetch("SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname LIKE 'tenant_%'")
    assert schemas == []


async def test_the_products_clock_runs_with_the_stream(tenant, open_lane, connect):
    events, _ = simulate(seed=2, start=START, days=2, profile=PROFILES["saas"])
    arrivals = deliver(events, seed=2, late=0.2, doubled=0.2)
    until = int((START + timedelta(days=3)).timestamp())

    lived = await live(open_lane(), tenant, arrivals, until=until)

    control = await connect()
    first = {}
    for arrival in arrivals:
        first.setdefault(arrival.event["id"], arrival)
    rows = await control.fetch(f"SELECT event_id, received_at, signed_at, deliveries FROM {tenant.schema_name}.events")
    times = {row["event_id"]: (row["received_at"], row["signed_at"]) for row in rows}
    assert times == {event_id: (instant(each.at), instant(each.signed_at)) for event_id, each in first.items()}
    assert sum(row["deliveries"] for row in rows) == len(arrivals) > len(rows)
    assert await control.fetchval("SELECT count(*) FROM control.pending_events") == 0
    # The scheduler judged the last full hour, too.
    assert await control.fetchval("SELECT since FROM control.due_visits WHERE kind = 'evaluate'") == START + timedelta(days=3) - timedelta(
        hours=1
    )
    assert lived.dead == 0


async def test_a_stream_without_arrivals_is_lived_through(tenant, open_lane):
    lived = await live(open_lane(), tenant, [], until=int(START.timestamp()))

    assert lived.anomalies == []


async def test_an_event_that_nobody_can_read_is_counted(tenant, open_lane):
    at = int(START.timestamp())
    broken = {
        "id": "evt_1",
        "object": "event",
        "type": "charge.succeeded",
        "created": at,
        "livemode": True,
        "data": {"object": {"id": "ch_1", "object": "charge", "amount": "much", "currency": "usd", "created": at}},
    }

    lived = await live(open_lane(), tenant, [Delivery(at=at, signed_at=at, event=broken)], until=at)

    assert lived.dead == 1


def test_a_report_runs_on_a_database_of_its_own_that_is_gone_afterwards(settings: Settings, server):
    wish = Wish(rounds=1, weeks=1, kinds=("tiny",), incidents=("duplicate_charge",), tuning=True, repeats=1, processes=1)
    progress: list[tuple[float, float]] = []

    report = detection_report(msgspec.structs.replace(settings, database_url=server.dsn), wish, lambda *so_far: progress.append(so_far))

    duplicates = next(score for score in report.ours.scores if score.detector == "duplicate_charge")
    assert (duplicates.recall.part, duplicates.recall.whole) == (1, 1)
    assert [(ran.stream, ran.incidents) for ran in report.streams] == [("tiny-0", 0), ("tiny-1", 1)]
    assert [quiet.kind for quiet in report.ours.quiet] == ["tiny"]
    assert progress[-1][0] == progress[-1][1] > 0
    assert _databases(server.dsn) == []


def test_the_command_prints_json_and_leaves_files(server, tmp_path: Path, secret_key: str):
    environ = {**os.environ, "BILLINGWATCH_DATABASE_URL": server.dsn, "BILLINGWATCH_SECRET_KEY": secret_key}
    command = [sys.executable, "-P", "-m", "billingwatch", "bench", "detection", "--weeks", "1", "--kinds", "tiny"]
    options = ["--incidents", "negative_invoice", "--seeds", "1", "--tuning", "--json", "--out", str(tmp_path / "out")]

    done = subprocess.run([*command, *options], env=environ, capture_output=True, timeout=110, check=True)

    report = msgspec.json.decode(done.stdout, type=Report)
    assert report.wish.tuning
    assert report.seeds == [0, 1, 2]
    assert msgspec.json.decode((tmp_path / "out" / "report.json").read_bytes(), type=Report) == report
    assert "| `negative_invoice` | 2 | 100% |" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("option", [["--kinds", "bakery"], ["--incidents", "flood"], ["--weeks", "0"]])
def test_what_does_not_exist_is_refused_before_anything_starts(option: list[str]):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "billingwatch", "bench", "detection", *option], capture_output=True, timeout=60, check=False
    )

    assert done.returncode == 2


def _databases(dsn: str) -> list[str]:
    async def look() -> list[str]:
        connection = await asyncpg.connect(dsn)
        rows = await connection.fetch("SELECT datname FROM pg_database WHERE datname LIKE 'billingwatch_bench%'")
        await connection.close()
        return [row["datname"] for row in rows]

    return asyncio.run(look())
