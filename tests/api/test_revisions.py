"""Between releases: a tenant one revision behind is served as ever, and one that is older loses no event."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from billingwatch.cli.detectors import detectors
from billingwatch.clock import utc_now
from billingwatch.errors import TenantOutdated
from billingwatch.postgres import migrations, revisions
from billingwatch.replay import Replay
from billingwatch.settings import Settings
from billingwatch.simulate.incidents.registry import INCIDENTS
from billingwatch.simulate.incidents.scenes import Incident
from billingwatch.simulate.payloads import charge_event_payloads
from billingwatch.simulate.profiles import PROFILES
from billingwatch.simulate.stream import body, simulate
from billingwatch.tenancy.fleet import migrate_fleet
from billingwatch.tenancy.fleet_plan import Options
from billingwatch.tenancy.provision import Provisioned
from billingwatch.tenancy.registry import load_tenant
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.tenants import Tenant

from .conftest import bearer, post, running

Acme = tuple[Tenant, Provisioned]
WITHOUT_BODY = "0004"  # the last tenant revision whose events have no column `body`
COLUMN = "ALTER TABLE events ADD COLUMN note text; ALTER TABLE charges ADD COLUMN note text"
BACK = "ALTER TABLE events DROP COLUMN note; ALTER TABLE charges DROP COLUMN note"


def charges(count: int, *, seed: int) -> list[bytes]:
    return list(charge_event_payloads(count, seed=seed, created=int(time.time())))


@pytest.fixture
def projected(control: Any, acme: Acme) -> Callable[[int], Awaitable[None]]:
    """Wait until the tenant has so many charges, and no event waits."""

    async def wait(count: int) -> None:
        deadline = time.monotonic() + 20
        found: tuple[int, int] | None = None
        while found != (count, 0):
            assert time.monotonic() < deadline, f"{found}: charges, waiting events"
            found = (
                await control.fetchval(f"SELECT count(*) FROM {acme[0].schema_name}.charges"),
                await control.fetchval("SELECT count(*) FROM control.pending_events"),
            )

    return wait


async def test_a_tenant_one_revision_behind_is_recorded_processed_and_read_before_and_after_its_migration(
    control: Any, database: str, acme: Acme, release: Any, settings: Settings, projected: Any
) -> None:
    release.add("tenant", COLUMN)
    _, made = acme
    first, second = charges(2, seed=1)

    with capture_logs() as logs, running(settings) as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            answers = [await post(http, made.webhook_token, first)]
            await projected(1)
            before = await http.get("/anomalies", headers=bearer(made))
            metrics = (await http.get("/metrics")).text
            outcome = await migrate_fleet(control, database, Options())
            answers.append(await post(http, made.webhook_token, second))
            await projected(2)
            after = await http.get("/anomalies", headers=bearer(made))
            metrics_after = (await http.get("/metrics")).text

    assert [answer.status_code for answer in (*answers, before, after)] == [200] * 4
    assert outcome.failed == []
    assert [(line["event"], line["tenants"]) for line in logs if line["event"].startswith("tenancy.")] == [("tenancy.tenants_behind", 1)]
    assert not [line for line in logs if line["event"] == "worker.visit_failed"]
    assert 'billingwatch_tenants_not_at_head{state="behind"} 1.0' in metrics
    assert 'billingwatch_tenants_not_at_head{state="behind"} 0.0' in metrics_after


async def test_body_that_json_refuses_waits_for_the_migration_of_its_tenant(
    control: Any, database: str, acme: Acme, settings: Settings, projected: Any
) -> None:
    """Stripe repeats what is answered with 503; the tenant's other events are recorded meanwhile."""
    made = acme[1]
    while (await load_revision(control)) != WITHOUT_BODY:
        await migrate_fleet(control, database, Options(back=True))
    unreadable = b'{"id": "evt_cut_off", "type": "charge.succ'
    good = charges(1, seed=1)[0]
    good_id = json.loads(good)["id"]

    with capture_logs(), running(settings) as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            refused = await post(http, made.webhook_token, unreadable)
            recorded = await post(http, made.webhook_token, good)
            await migrate_fleet(control, database, Options())
            await projected(1)
            shown = await http.get(f"/events/{good_id}", headers=bearer(made))
            accepted = await post(http, made.webhook_token, unreadable)
            kept = await http.get("/events/evt_cut_off", headers=bearer(made))

    assert (refused.status_code, recorded.status_code, accepted.status_code) == (503, 200, 200)
    assert refused.headers["retry-after"]
    assert (shown.json()["payload"]["id"], shown.json()["body"]) == (good_id, None)
    assert (kept.json()["payload"], base64.b64decode(kept.json()["body"])) == (None, unreadable)


async def load_revision(control: Any) -> str:
    revision: str = await control.fetchval("SELECT revision FROM control.tenants")
    return revision


async def test_a_process_of_the_release_before_runs_on_when_its_tenants_have_been_migrated(
    control: Any, acme: Acme, settings: Settings, projected: Any
) -> None:
    tenant, made = acme
    async with tenant_scope(control, tenant) as scoped:
        await scoped.execute(f"RESET ROLE; {COLUMN}")  # only an owner may
    await control.execute("UPDATE control.tenants SET revision = 'of a newer release'")

    with capture_logs() as logs, running(settings) as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            answer = await post(http, made.webhook_token, charges(1, seed=1)[0])
            await projected(1)
            read = await http.get("/anomalies", headers=bearer(made))

    assert (answer.status_code, read.status_code) == (200, 200)
    assert [line["event"] for line in logs if line["event"].startswith("tenancy.")] == ["tenancy.tenants_newer"]


async def test_the_events_of_a_tenant_that_is_too_old_are_recorded_and_processed_once_it_is_migrated(
    control: Any, database: str, acme: Acme, settings: Settings, projected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, made = acme
    monkeypatch.setattr(revisions, "OLDEST", migrations.head("tenant"))
    await migrate_fleet(control, database, Options(back=True))

    with capture_logs() as logs, running(settings) as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            answers = [await post(http, made.webhook_token, payload) for payload in charges(3, seed=1)]
            refused = await http.get("/anomalies", headers=bearer(made))
            unset = await http.patch("/detectors/fraud_spike", headers=bearer(made), json={"active": False})
            waiting = await control.fetchval("SELECT count(*) FROM control.pending_events")
            metrics = (await http.get("/metrics")).text
            await migrate_fleet(control, database, Options())
            await projected(3)
            read = await http.get("/anomalies", headers=bearer(made))
            detector = await http.get("/detectors/fraud_spike", headers=bearer(made))

    assert [answer.status_code for answer in answers] == [200] * 3
    assert (refused.status_code, read.status_code) == (503, 200)
    assert (unset.status_code, detector.json()["state"]) == (503, "active")
    assert refused.headers["retry-after"]
    assert "too old for this release" in refused.json()["detail"]
    assert waiting == 3
    assert 'billingwatch_tenants_not_at_head{state="outdated"} 1.0' in metrics
    assert [(line["event"], line["tenants"]) for line in logs if line["event"].startswith("tenancy.")] == [("tenancy.tenants_outdated", 1)]
    assert await control.fetchval(f"SELECT count(*) FROM {tenant.schema_name}.events") == 3


async def test_a_command_says_that_a_tenant_is_too_old_and_what_to_do(
    control: Any, database: str, acme: Acme, seal: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revisions, "OLDEST", migrations.head("tenant"))
    await migrate_fleet(control, database, Options(back=True, isolation=settings.isolation))
    tenant = await load_tenant(control, seal, "acme")
    for name in ("database_url", "secret_key", "isolation"):
        monkeypatch.setenv(f"BILLINGWATCH_{name.upper()}", getattr(settings, name))

    with pytest.raises(TenantOutdated, match=f"revision {tenant.revision}, too old for this release") as raised:
        await Replay(database, tenant, utc_now).run(charges(1, seed=1))
    tried = await asyncio.to_thread(CliRunner().invoke, detectors, ["set", "acme", "fraud_spike", "--off"])

    assert raised.value.hint == "run `billingwatch migrate`"
    assert isinstance(tried.exception, TenantOutdated)
    assert await control.fetchval("SELECT count(*) FROM control.detector_settings") == 0


async def test_a_months_events_are_processed_at_the_oldest_revision_that_is_supported(
    control: Any, database: str, acme: Acme, release: Any, seal: Any
) -> None:
    if migrations.head("tenant") == revisions.OLDEST:  # so that there is one before the head
        release.add("tenant", COLUMN, back=BACK)
        await migrate_fleet(control, database, Options())
    await migrate_fleet(control, database, Options(back=True))
    tenant = await load_tenant(control, seal, "acme")
    incidents = [Incident(name=name, strength=1.0) for name in INCIDENTS]
    events, _ = simulate(seed=5, start=datetime(2026, 1, 1, tzinfo=UTC), days=28, profile=PROFILES["saas"], incidents=incidents)
    bodies = [body(event) for event in events]

    done = await Replay(database, tenant, lambda: datetime(2026, 2, 1, tzinfo=UTC)).run(bodies)

    assert tenant.revision == revisions.OLDEST
    assert (done.processed, done.dead, done.refused) == (len(bodies), 0, [])
    found = await control.fetch(f"SELECT DISTINCT detector FROM {tenant.schema_name}.anomalies")
    assert len(found) >= 10
