"""`POST /webhook/{token}`: what Stripe is answered, and what is stored then."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest

from billingwatch.settings import Settings
from billingwatch.tenancy.provision import Provisioned, add_secret, list_secrets, remove_secret
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.tenants import Tenant

from .conftest import SECRET, event, post, running, signature

Acme = tuple[Tenant, Provisioned]


async def stored(control: asyncpg.Connection, tenant: Tenant) -> list[asyncpg.Record]:
    async with tenant_scope(control, tenant) as scoped:
        return await scoped.fetch("SELECT event_id, disposition, deliveries, payload FROM events ORDER BY event_id")


async def test_a_signed_event_is_stored_before_it_is_acknowledged(http: httpx.AsyncClient, control: Any, acme: Acme) -> None:
    tenant, made = acme
    body = event("evt_1")

    answer = await post(http, made.webhook_token, body)
    rows = await stored(control, tenant)

    assert answer.status_code == 200
    assert answer.json() == {"status": "ok"}
    assert [(row["event_id"], row["payload"]) for row in rows] == [("evt_1", body.decode())]


async def test_an_acknowledgement_waits_neither_for_projection_nor_for_detection(http: httpx.AsyncClient, control: Any, acme: Acme) -> None:
    tenant, made = acme
    charged = {"id": "ch_1", "object": "charge", "amount": 2000, "currency": "usd", "created": 1_772_000_000, "status": "succeeded"}
    async with control.transaction():
        await control.execute(f"LOCK TABLE {tenant.schema_name}.charges, {tenant.schema_name}.anomalies IN ACCESS EXCLUSIVE MODE")

        answer = await post(http, made.webhook_token, event(data={"object": charged}), timeout=10)
        pending = await control.fetchval("SELECT count(*) FROM control.pending_events WHERE tenant_id = $1", tenant.tenant_id)

    assert answer.status_code == 200
    assert pending == 1
    async with asyncio.timeout(20):
        while not await control.fetchval(f"SELECT count(*) FROM {tenant.schema_name}.charges"):
            await asyncio.sleep(0.05)


async def test_an_unknown_event_type_is_stored_and_acknowledged(http: httpx.AsyncClient, control: Any, acme: Acme) -> None:
    tenant, made = acme

    answer = await post(http, made.webhook_token, event(kind="tomorrow.invented"))

    assert answer.status_code == 200
    assert len(await stored(control, tenant)) == 1


async def test_twenty_deliveries_of_one_event_at_once_give_one_row(http: httpx.AsyncClient, control: Any, acme: Acme) -> None:
    tenant, made = acme
    body = event("evt_twenty")

    answers = await asyncio.gather(*(post(http, made.webhook_token, body) for _ in range(20)))
    rows = await stored(control, tenant)

    assert {answer.status_code for answer in answers} == {200}
    assert sum("duplicate" not in answer.json() for answer in answers) == 1
    assert [(row["event_id"], row["deliveries"]) for row in rows] == [("evt_twenty", 20)]


async def test_the_same_event_id_at_two_tenants_is_two_events(
    http: httpx.AsyncClient, control: Any, acme: Acme, provision_tenant: Any
) -> None:
    tenant, made = acme
    other, other_made = await provision_tenant("other", secrets=("whsec_of_the_other_tenant",))
    body = event("evt_shared")

    first = await post(http, made.webhook_token, body)
    second = await post(http, other_made.webhook_token, body, signature(body, "whsec_of_the_other_tenant"))

    assert (first.json(), second.json()) == ({"status": "ok"}, {"status": "ok"})
    assert len(await stored(control, tenant)) == len(await stored(control, other)) == 1


async def test_a_valid_event_of_another_tenant_is_refused_and_not_stored(
    http: httpx.AsyncClient, control: Any, acme: Acme, provision_tenant: Any
) -> None:
    _, made = acme
    other, other_made = await provision_tenant("other", secrets=("whsec_of_the_other_tenant",))
    body = event()

    answer = await post(http, other_made.webhook_token, body, signature(body, SECRET))

    assert answer.status_code == 400
    assert await stored(control, other) == []
    assert made.webhook_token != other_made.webhook_token


@pytest.mark.parametrize(
    "header",
    ["", "t=1", "v1=00", "t=abc,v1=00", "t=NOW,v1=00", "t=NOW,v0=00", "t=NOW,t=NOW,v1=00", "t=NOW," * 2000],
    ids=["empty", "no-v1", "no-t", "t-is-no-number", "wrong", "only-v0", "two-t", "endless"],
)
async def test_a_malformed_signature_is_refused_and_nothing_stored(http: httpx.AsyncClient, control: Any, acme: Acme, header: str) -> None:
    tenant, made = acme

    answer = await post(http, made.webhook_token, event(), header.replace("NOW", str(int(time.time()))))

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert await stored(control, tenant) == []


@pytest.mark.parametrize("offset", [-400, 400])
async def test_a_signature_beyond_the_tolerance_is_refused_in_both_directions(
    http: httpx.AsyncClient, control: Any, acme: Acme, offset: int
) -> None:
    tenant, made = acme
    body = event()

    answer = await post(http, made.webhook_token, body, signature(body, at=time.time() + offset))

    assert answer.status_code == 400
    assert await stored(control, tenant) == []


async def test_a_missing_signature_is_refused(http: httpx.AsyncClient, acme: Acme) -> None:
    answer = await http.post(f"/webhook/{acme[1].webhook_token}", content=event())

    assert answer.status_code == 400


async def test_a_retry_of_a_three_day_old_event_with_a_fresh_signature_is_accepted(http: httpx.AsyncClient, acme: Acme) -> None:
    answer = await post(http, acme[1].webhook_token, event(created=int(time.time()) - 3 * 86400))

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"no json", b"[]", b'{"type":"a.b","created":1}', b'{"id":"","type":"a.b","created":1}', b'{"id":"evt_\xff"}'],
    ids=["empty", "no-json", "list", "no-id", "empty-id", "no-utf-8"],
)
async def test_what_is_not_an_event_is_refused_though_it_is_signed(http: httpx.AsyncClient, control: Any, acme: Acme, body: bytes) -> None:
    tenant, made = acme
    header = signature(body) if body.isascii() else "t=1,v1=00"

    answer = await post(http, made.webhook_token, body, header)

    assert answer.status_code == 400
    assert await stored(control, tenant) == []


async def test_an_unknown_token_is_not_found(http: httpx.AsyncClient) -> None:
    answer = await post(http, "no-such-token", event())

    assert answer.status_code == 404
    assert answer.json()["status"] == 404


async def test_a_tenant_without_a_secret_asks_for_another_try(http: httpx.AsyncClient, provision_tenant: Any) -> None:
    _, made = await provision_tenant("bare", secrets=())

    answer = await post(http, made.webhook_token, event())

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


async def test_a_rolled_secret_works_beside_the_old_one_until_that_is_removed(
    http: httpx.AsyncClient, control: Any, seal: Any, acme: Acme
) -> None:
    _, made = acme
    old, new = event("evt_old"), event("evt_new")
    await add_secret(control, seal, "acme", "whsec_the_new_secret")

    both = [await post(http, made.webhook_token, old), await post(http, made.webhook_token, new, signature(new, "whsec_the_new_secret"))]
    await remove_secret(control, "acme", (await list_secrets(control, "acme"))[0].secret_id)
    async with asyncio.timeout(5):
        while (after := await post(http, made.webhook_token, old)).status_code == 200:
            await asyncio.sleep(0.05)

    assert [answer.status_code for answer in both] == [200, 200]
    assert after.status_code == 400


async def test_a_body_above_one_mebibyte_is_refused(http: httpx.AsyncClient, acme: Acme) -> None:
    body = event(padding="x" * (1024 * 1024))

    answer = await post(http, acme[1].webhook_token, body)

    assert answer.status_code == 413


async def test_a_chunked_body_above_one_mebibyte_is_refused(http: httpx.AsyncClient, acme: Acme) -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 65536

    answer = await http.post(f"/webhook/{acme[1].webhook_token}", content=chunks(), headers={"stripe-signature": "t=1,v1=0"})

    assert answer.status_code == 413


async def test_a_trailing_slash_is_no_redirect(http: httpx.AsyncClient, acme: Acme) -> None:
    body = event()

    answer = await http.post(f"/webhook/{acme[1].webhook_token}/", content=body, headers={"stripe-signature": signature(body)})

    assert answer.status_code == 200


async def test_only_post_is_allowed(http: httpx.AsyncClient, acme: Acme) -> None:
    answer = await http.get(f"/webhook/{acme[1].webhook_token}")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


async def test_test_mode_events_at_a_live_tenant_are_kept_apart(http: httpx.AsyncClient, control: Any, acme: Acme) -> None:
    tenant, made = acme

    answer = await post(http, made.webhook_token, event(livemode=False))
    rows = await stored(control, tenant)

    assert answer.status_code == 200
    assert [row["disposition"] for row in rows] == ["ignored"]
    assert await control.fetchval("SELECT count(*) FROM control.pending_events") == 0


async def test_a_thin_event_is_marked_for_fetching(http: httpx.AsyncClient, control: Any, acme: Acme) -> None:
    tenant, made = acme
    body = json.dumps(
        {
            "id": "evt_thin",
            "object": "v2.core.event",
            "type": "v1.invoice.paid",
            "created": "2026-09-20T12:00:00.123Z",
            "livemode": True,
            "context": "acct_x",
            "related_object": {"id": "in_x", "type": "invoice", "url": "/v1/invoices/in_x"},
        }
    ).encode()

    answer = await post(http, made.webhook_token, body)
    rows = await stored(control, tenant)

    assert answer.status_code == 200
    assert [row["disposition"] for row in rows] == ["needs_fetch"]


async def test_above_the_rate_limit_the_sender_is_told_when_to_come_back(settings: Settings, acme: Acme) -> None:
    limited = msgspec.structs.replace(settings, rate_limit=1, rate_burst_seconds=5)
    with running(limited) as url:
        async with httpx.AsyncClient(base_url=url) as http:
            answers = [await post(http, acme[1].webhook_token, event(f"evt_{number}")) for number in range(8)]

    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
    assert int(answers[-1].headers["retry-after"]) in range(1, 6)


async def test_one_tenants_flood_does_not_limit_another(settings: Settings, acme: Acme, provision_tenant: Any) -> None:
    _, other = await provision_tenant("other", secrets=(SECRET,))
    limited = msgspec.structs.replace(settings, rate_limit=1, rate_burst_seconds=1)
    with running(limited) as url:
        async with httpx.AsyncClient(base_url=url) as http:
            flood = [await post(http, acme[1].webhook_token, event(f"evt_{number}")) for number in range(4)]
            answer = await post(http, other.webhook_token, event())

    assert flood[-1].status_code == 429
    assert answer.status_code == 200
