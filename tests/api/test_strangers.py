"""Senders who are not known: what they are answered, what they cost the known ones, and what stays in the log."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
import structlog

from billingwatch.settings import Settings
from billingwatch.tenancy.provision import Provisioned
from billingwatch.tenancy.tenants import Tenant

from .conftest import bearer, event, post, running, signature

Acme = tuple[Tenant, Provisioned]

MIB = 1024 * 1024


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def head(reader: asyncio.StreamReader) -> str:
    async with asyncio.timeout(20):
        return (await reader.readuntil(b"\r\n\r\n")).decode().lower()


def declares(path: str, size: int, *headers: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {size}", *headers, "", ""]).encode()


async def metric(http: httpx.AsyncClient, name: str) -> float:
    lines = (await http.get("/metrics")).text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)


async def test_unknown_url_is_answered_before_a_large_body_arrives(url: str) -> None:
    reader, writer = await connect(url)

    writer.write(declares("/webhook/nope", MIB))
    answer = await head(reader)
    writer.close()

    assert " 404 " in answer.splitlines()[0]
    assert "connection: close" in answer


async def test_unknown_url_with_a_small_body_keeps_the_connection(url: str) -> None:
    reader, writer = await connect(url)

    answers = []
    for _ in range(2):
        writer.write(declares("/webhook/nope", 2) + b"{}")
        answers.append(await head(reader))
        await reader.readuntil(b"}")
    writer.close()

    assert [" 404 " in answer for answer in answers] == [True, True]
    assert "connection: close" not in answers[0]


async def test_declared_body_above_one_mebibyte_is_refused_unread(url: str, acme: Acme) -> None:
    reader, writer = await connect(url)

    writer.write(declares(f"/webhook/{acme[1].webhook_token}", MIB + 1))
    answer = await head(reader)
    writer.close()

    assert " 413 " in answer.splitlines()[0]


async def test_declared_bodies_that_never_arrive_take_nothing(url: str, http: httpx.AsyncClient, acme: Acme) -> None:
    uploads = [await connect(url) for _ in range(40)]
    for _, writer in uploads:
        writer.write(declares(f"/webhook/{acme[1].webhook_token}", MIB, "Expect: 100-continue"))
    first_lines = [(await head(reader)).splitlines()[0] for reader, _ in uploads]

    large = await post(http, acme[1].webhook_token, event("evt_large", padding="x" * 100_000))
    for _, writer in uploads:
        writer.close()

    assert all(" 100 " in line for line in first_lines)
    assert large.status_code == 200


async def test_large_bodies_above_the_bound_get_503_and_small_ones_pass(url: str, http: httpx.AsyncClient, acme: Acme) -> None:
    path = f"/webhook/{acme[1].webhook_token}"
    uploads = [await connect(url) for _ in range(32)]
    for _, writer in uploads:
        writer.write(declares(path, MIB) + b"x" * (MIB - 1))
        await writer.drain()
    async with asyncio.timeout(20):
        while (large := await post(http, acme[1].webhook_token, event("evt_large", padding="x" * 100_000))).status_code == 200:
            await asyncio.sleep(0.05)

    small = await post(http, acme[1].webhook_token, event("evt_small"))
    for _, writer in uploads:
        writer.close()
    async with asyncio.timeout(20):
        while (later := await post(http, acme[1].webhook_token, event("evt_later", padding="x" * 100_000))).status_code == 503:
            await asyncio.sleep(0.05)

    assert (small.status_code, large.status_code, later.status_code) == (200, 503, 200)
    assert int(large.headers["retry-after"]) > 0


async def test_unsigned_flood_takes_nothing_from_the_tenants_rate(settings: Settings, acme: Acme) -> None:
    token = acme[1].webhook_token
    with running(msgspec.structs.replace(settings, rate_limit=1, rate_burst_seconds=20)) as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            forged = await asyncio.gather(*(http.post(f"/webhook/{token}", content=b"{}") for _ in range(300)))
            signed = [await post(http, token, event(f"evt_{number}")) for number in range(20)]
            later = await asyncio.gather(*(post(http, token, event(f"evt_later_{number}")) for number in range(60)))

    assert {answer.status_code for answer in signed} == {200}
    assert 429 in {answer.status_code for answer in later}  # the rate holds for signed events
    refused = [answer for answer in forged if answer.status_code == 429]
    assert {answer.status_code for answer in forged} == {400, 429}
    assert len(refused) <= 200  # a burst of 100 gets 400
    assert {answer.headers["connection"] for answer in refused} == {"close"}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer bw_wrong"}])
async def test_api_refuses_a_wrong_key_before_it_reads_the_body(url: str, headers: dict[str, str]) -> None:
    reader, writer = await connect(url)

    writer.write(declares("/mutes", 60_000, *(f"{name}: {value}" for name, value in headers.items())))
    answer = await head(reader)
    writer.close()

    assert " 401 " in answer.splitlines()[0]


async def test_api_refuses_a_body_above_64_kib(http: httpx.AsyncClient, acme: Acme) -> None:
    answer = await http.post("/mutes", content=b'{"reason": "' + b"x" * 70_000 + b'"}', headers=bearer(acme[1]))

    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["title"] == "Body too large"


async def test_sender_that_hangs_up_is_counted_and_not_logged(url: str, http: httpx.AsyncClient, acme: Acme) -> None:
    before = await metric(http, 'billingwatch_events_total{outcome="client_gone"}')
    errors_before = await metric(http, 'billingwatch_events_total{outcome="error"}')

    with structlog.testing.capture_logs() as lines:
        for _ in range(20):
            _, writer = await connect(url)
            writer.write(declares(f"/webhook/{acme[1].webhook_token}", 1000) + b"{")
            await writer.drain()
            writer.transport.abort()
        async with asyncio.timeout(20):
            while await metric(http, 'billingwatch_events_total{outcome="client_gone"}') < before + 20:
                await asyncio.sleep(0.05)

    assert lines == []
    assert await metric(http, 'billingwatch_events_total{outcome="error"}') == errors_before


async def test_strangers_cannot_fill_the_log(url: str, http: httpx.AsyncClient, acme: Acme, caplog: pytest.LogCaptureFixture) -> None:
    parts = urlsplit(url)
    with structlog.testing.capture_logs() as lines:
        for number in range(50):
            await http.post(f"/webhook/nope{number}", content=b"{}")
            await http.post(f"/webhook/{acme[1].webhook_token}", content=b"{}")
            await http.get(f"/nothing/{number}")
            for garbage in (b"garbage\r\n\r\n", b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"):
                with socket.create_connection((parts.hostname or "", parts.port or 0)) as one:
                    one.sendall(garbage)
                    one.recv(1000)

    assert len(lines) <= 5
    assert {line["event"] for line in lines} == {"ingest.delivery_refused", "server.connection_closed"}
    assert [record for record in caplog.records if record.name.startswith("uvicorn.error") and record.levelname == "WARNING"] == []


async def test_paused_tenant_receives_and_removed_one_is_not_found(
    settings: Settings, control: Any, acme: Acme, provision_tenant: Any
) -> None:
    _, going = await provision_tenant("going", secrets=("whsec_of_the_one_that_goes",))
    await control.execute("UPDATE control.tenants SET paused_at = now(), status = CASE name WHEN 'acme' THEN 'paused' ELSE 'removing' END")
    with running(settings, processing=False) as url:
        async with httpx.AsyncClient(base_url=url) as http:
            paused = await post(http, acme[1].webhook_token, event())
            body = event()
            removing = await post(http, going.webhook_token, body, signature(body, "whsec_of_the_one_that_goes"))

    assert (paused.status_code, removing.status_code) == (200, 404)
    assert await control.fetchval(f"SELECT count(*) FROM {acme[0].schema_name}.events") == 1
    assert await control.fetchval("SELECT count(*) FROM control.pending_events") == 1


async def test_each_refusal_leaves_a_trace_of_its_tenant(settings: Settings, control: Any, acme: Acme, provision_tenant: Any) -> None:
    _, bare = await provision_tenant("bare", secrets=())
    _, slow = await provision_tenant("slow", secrets=("whsec_of_the_slow_one",))
    body = event()
    with structlog.testing.capture_logs() as lines, running(settings, processing=False) as url:
        async with httpx.AsyncClient(base_url=url) as http:
            before = await metric(http, 'billingwatch_refused_deliveries_total{reason="malformed"}')
            await post(http, bare.webhook_token, body)
            await post(http, slow.webhook_token, body, signature(body, "whsec_of_the_slow_one", at=time.time() - 1000))
            await post(http, acme[1].webhook_token, body, "t=1,v1=00")
            await post(http, acme[1].webhook_token, event(livemode=False))
            await post(http, acme[1].webhook_token, b"[]")
            after = await metric(http, 'billingwatch_refused_deliveries_total{reason="malformed"}')
    rows = await control.fetch(
        "SELECT t.name, a.refused, a.last_refusal, a.ignored FROM control.ingest_activity AS a JOIN control.tenants AS t USING (tenant_id)"
        " ORDER BY t.name"
    )

    assert [(row["name"], row["refused"], row["last_refusal"].partition(":")[0], row["ignored"]) for row in rows] == [
        ("acme", 2, "malformed", 1),
        ("bare", 1, "no_signing_secret", 0),
        ("slow", 1, "clock_out_of_tolerance", 0),
    ]
    assert after == before + 1
    logged = {(line.get("tenant"), line["reason"]) for line in lines if line["event"] == "ingest.delivery_refused"}
    assert logged == {
        ("acme", "malformed"),
        ("acme", "signature_invalid"),
        ("bare", "no_signing_secret"),
        ("slow", "clock_out_of_tolerance"),
    }


async def test_page_assets_share_their_bytes_and_no_other_file_is_served(http: httpx.AsyncClient) -> None:
    script = await http.get("/docs/assets/swagger-ui-bundle.js")
    other = await http.get("/docs/assets/swagger-editor-es-bundle.js.map")

    assert (script.status_code, other.status_code) == (200, 404)
    assert script.headers["content-type"].startswith("text/javascript")
    assert int(script.headers["content-length"]) == len(script.content)


async def test_trailers_do_not_replace_headers(url: str, acme: Acme) -> None:
    reader, writer = await connect(url)
    body = event("evt_trailer")
    request = [
        f"POST /webhook/{acme[1].webhook_token} HTTP/1.1",
        "Host: x",
        "Transfer-Encoding: chunked",
        f"Stripe-Signature: {signature(body)}",
        "",
        f"{len(body):x}",
        body.decode(),
        "0",
        "Stripe-Signature: t=1,v1=00",
        "",
        "",
    ]

    writer.write("\r\n".join(request).encode())
    answer = await head(reader)
    writer.close()

    assert " 200 " in answer.splitlines()[0]
