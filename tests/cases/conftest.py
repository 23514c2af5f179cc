"""Fixtures: feed a case's events to a tenant by signed webhook and by replay, and read what its tables then hold."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import select

from billingwatch.clock import utc_now
from billingwatch.postgres.tenant_plane import metadata
from billingwatch.replay import Replay, Replayed
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.tenants import Tenant
from billingwatch.visit import list_dead_letters, visit

from ..api.conftest import post, running  # noqa: TID252 - the application behind a real socket lives there

INPUTS = Path(__file__).parent / "inputs"
WAIT_SECONDS = 100  # for the service to process a case; the machine may be busy
# Columns that name the delivery or the run, not the history.
BOOKKEEPING = {
    "events": {"signed_at", "received_at", "last_received_at", "deliveries"},
    "anomalies": {"anomaly_id", "detected_at", "updated_at", "historical"},
}

Json = dict[str, Any]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant after a case: its tables, its views, and what could not be projected."""

    tables: dict[str, list[Json]]
    views: dict[str, list[Json]]
    dead: list[Json]
    pending: int

    def anomalies(self, *, closed: bool = False) -> list[Json]:
        """Return anomalies that were not retracted; those that are over only with `closed`."""
        standing = [row for row in self.tables["anomalies"] if row["resolution"] != "retracted"]
        return [row for row in standing if closed or row["status"] == "open"]

    def found(self) -> list[tuple[str, str]]:
        """Return detector and severity of each anomaly that was not retracted."""
        return [(row["detector"], row["severity"]) for row in self.anomalies(closed=True)]


def without_event_ids(outcome: Outcome) -> dict[str, list[Json]]:
    """Return the tables without the event ids in evidence: a snapshot that says nothing new still gives its row a newer id."""
    anomalies = [
        {**row, "evidence": {name: value for name, value in row["evidence"].items() if name != "event_ids"}}
        for row in outcome.tables["anomalies"]
    ]
    return {**outcome.tables, "anomalies": anomalies}


VIEWS = ("revenue_daily", "disputes_open", "subscriptions_active")


def read_case(name: str) -> list[bytes]:
    return (INPUTS / f"{name}.jsonl").read_bytes().splitlines()


@pytest.fixture
def outcome_of(control) -> Callable[[Tenant], Awaitable[Outcome]]:
    async def outcome_of(tenant: Tenant) -> Outcome:
        async with tenant_scope(control, tenant, readonly=True) as scoped:
            tables = {}
            for name, table in metadata.tables.items():
                columns = [column for column in table.columns if column.name not in BOOKKEEPING.get(name, set())]
                rows = [dict(row) for row in await scoped.fetch(str(select(*columns)))]
                tables[name] = sorted(rows, key=lambda row: json.dumps(row, sort_keys=True, default=str))
            views = {name: [dict(row) for row in await scoped.fetch(f"SELECT * FROM {name} ORDER BY 1, 2")] for name in VIEWS}
        pending = await control.fetchval("SELECT count(*) FROM control.pending_events WHERE tenant_id = $1", tenant.tenant_id)
        dead = [msgspec.structs.asdict(letter) for letter in await list_dead_letters(control, tenant.tenant_id)]
        return Outcome(tables=tables, views=views, dead=dead, pending=pending)

    return outcome_of


@pytest.fixture
def replayed(database, provision_tenant, outcome_of):
    """Replay events into a tenant of their own."""

    async def replayed(events: Sequence[bytes], *, name: str = "replayed", as_of: datetime | None = None) -> Outcome:
        tenant, _ = await provision_tenant(name)
        done = await Replay(database, tenant, (lambda: as_of) if as_of else utc_now).run(events)
        assert done.refused == []
        return await outcome_of(tenant)

    return replayed


@pytest.fixture
def delivered(settings, control, open_lane, provision_tenant, outcome_of):
    """Post events as Stripe does to a running service, wait until it has processed them, and evaluate time once more."""

    async def delivered(events: Sequence[bytes], *, name: str = "delivered") -> Outcome:
        tenant, made = await provision_tenant(name)
        with running(settings) as url:
            async with httpx.AsyncClient(base_url=url, timeout=30) as http:
                for body in events:
                    assert (await post(http, made.webhook_token, body)).status_code == 200
            async with asyncio.timeout(WAIT_SECONDS):
                while await control.fetchval("SELECT count(*) FROM control.pending_events WHERE tenant_id = $1", tenant.tenant_id):
                    await asyncio.sleep(0.05)
        while (await visit(open_lane("judge"), tenant, as_of=utc_now(), judge_now=True)).more:
            pass
        return await outcome_of(tenant)

    return delivered


@pytest.fixture
def outcome(delivered, replayed):
    """Feed a case both ways; return its outcome, which must be the same, with nothing dead, refused or pending."""

    async def outcome(name: str) -> Outcome:
        events = read_case(name)
        by_webhook, by_replay = await delivered(events), await replayed(events)
        assert without_event_ids(by_webhook) == without_event_ids(by_replay)
        assert by_webhook.views == by_replay.views
        assert (by_webhook.dead, by_webhook.pending) == (by_replay.dead, by_replay.pending) == ([], 0)
        return by_replay

    return outcome


@pytest.fixture
def tenant_of(provision_tenant):
    async def tenant_of(name: str) -> Tenant:
        return (await provision_tenant(name))[0]

    return tenant_of


@pytest.fixture
def replay_of(database, tenant_of):
    """Replay events, and return what the replay reports."""

    async def replay_of(events: Sequence[bytes], *, tenant: Tenant | None = None, statement_timeout: int = 30) -> Replayed:
        found = tenant or await tenant_of("acme")
        return await Replay(database, found, utc_now, statement_timeout=statement_timeout).run(events)

    return replay_of
