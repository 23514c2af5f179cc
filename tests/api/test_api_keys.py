"""API keys over HTTP: what each scope may do, and when a key ends."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from billingwatch.tenancy.keys import create_key, list_keys, revoke_key
from billingwatch.tenancy.lifecycle import pause_tenant


def bearer_of(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def until_status(http: Any, key: str, status: int) -> None:
    async with asyncio.timeout(20):
        while (await http.get("/anomalies", headers=bearer_of(key))).status_code != status:
            await asyncio.sleep(0.02)


async def test_read_key_reads_and_changes_nothing(http, control, acme):
    made = await create_key(control, "acme", "viewer", scope="read")
    headers = bearer_of(made.api_key)

    read = await http.get("/detectors", headers=headers)
    answers = [
        await http.post("/mutes", headers=headers, json={"reason": "x"}),
        await http.patch("/detectors/fraud_spike", headers=headers, json={"active": False}),
        await http.post("/detectors/fraud_spike/backtest", headers=headers, json={}),
        await http.delete("/mutes/1", headers=headers),
    ]

    assert read.status_code == 200
    assert [answer.status_code for answer in answers] == [403, 403, 403, 403]
    assert answers[0].headers["content-type"] == "application/problem+json"
    assert "read-only" in answers[0].json()["detail"]
    assert "billingwatch keys create" in answers[0].json()["detail"]
    assert await control.fetchval("SELECT count(*) FROM control.mutes") == 0


async def test_audit_log_names_the_key_that_changed_something(http, control, acme):
    made = await create_key(control, "acme", "billing team")
    _, provisioned = acme
    await control.execute("UPDATE control.api_keys SET name = '' WHERE name = 'default'")

    for key in (made.api_key, provisioned.api_key):
        answer = await http.post("/mutes", headers=bearer_of(key), json={"detector": "fraud_spike", "reason": "a sale"})
        assert answer.status_code == 201

    actors = [
        row["actor"] for row in await control.fetch("SELECT actor FROM control.audit_log WHERE action = 'mute.added' ORDER BY audit_id")
    ]
    assert actors == ["billing team", provisioned.api_key[:7]]


async def test_revoked_key_is_refused_while_service_runs(http, control, acme):
    made = await create_key(control, "acme", "leaked")
    await until_status(http, made.api_key, 200)

    await revoke_key(control, "acme", made.key_id)

    await until_status(http, made.api_key, 401)


async def test_expired_key_is_refused_while_service_runs(http, control, acme):
    made = await create_key(control, "acme", "short", expires_in=timedelta(seconds=4))
    await until_status(http, made.api_key, 200)

    await until_status(http, made.api_key, 401)


async def test_use_of_a_key_is_written_in_the_background(http, control, acme):
    _, provisioned = acme

    await http.get("/anomalies", headers=bearer_of(provisioned.api_key))

    async with asyncio.timeout(30):
        while (await list_keys(control, "acme"))[0].last_used_at is None:
            await asyncio.sleep(0.05)
    used_at = (await list_keys(control, "acme"))[0].last_used_at
    assert (used_at.second, used_at.microsecond) == (0, 0)


async def test_reads_of_paused_tenant_show_its_state(http, control, acme, now):
    _, provisioned = acme
    await pause_tenant(control, "acme", as_of=now)

    async with asyncio.timeout(20):
        while True:
            answer = await http.get("/detectors", headers=bearer_of(provisioned.api_key))
            assert answer.status_code == 200
            if {row["state"] for row in answer.json()["detectors"]} == {"paused"}:
                break
            await asyncio.sleep(0.02)
    assert (await http.get("/anomalies", headers=bearer_of(provisioned.api_key))).status_code == 200


async def test_secret_of_another_key_fails_deliveries_only(http, control, acme):
    _, provisioned = acme
    await control.execute("UPDATE control.signing_secrets SET ciphertext = 'not a token of this key'")

    read = await http.get("/anomalies", headers=bearer_of(provisioned.api_key))
    delivery = await http.post(f"/webhook/{provisioned.webhook_token}", content=b"{}")

    assert read.status_code == 200
    assert delivery.status_code == 503
    assert "retry-after" in delivery.headers
