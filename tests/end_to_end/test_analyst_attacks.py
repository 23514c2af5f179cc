"""An analyst attacks a running service with what its role may do; the other tenants notice nothing."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import stripe

from billingwatch.postgres.embedded import EmbeddedServer

SECRET = "whsec_of_the_tenant_that_is_not_attacked"
QUEUE_PAGES = 64  # of 8 KB; the smallest queue that PostgreSQL allows
QUEUE_SINCE = 17  # major version that has `max_notify_queue_pages`


@pytest.fixture
def small_queue(installation: Any) -> Iterator[Any]:
    """A server whose notify queue is soon full."""
    binaries = installation.environ.get("BILLINGWATCH_POSTGRES_BIN")
    server = EmbeddedServer.acquire(
        installation.directory,
        binaries=Path(binaries) if binaries else None,
        settings={"max_notify_queue_pages": str(QUEUE_PAGES)} if _major(binaries) >= QUEUE_SINCE else {},
    )
    yield installation
    server.release()


def _major(binaries: str | None) -> int:
    name = "" if binaries is None else Path(binaries).parent.name
    return int(name) if name.isdecimal() else QUEUE_SINCE


def deliver(url: str, event_id: str) -> int:
    body = json.dumps(
        {
            "id": event_id,
            "object": "event",
            "type": "ping",
            "created": int(time.time()),
            "livemode": True,
            "data": {},
        }
    ).encode()
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), SECRET, int(time.time()))
    return httpx.post(url, content=body, headers={"stripe-signature": header}, timeout=60).status_code


async def fill_queue(dsn: str) -> list[asyncpg.Connection]:
    """Listen in an open transaction, so that nothing leaves the queue, and notify until it is full."""
    listener, sender = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    await listener.execute("SET idle_in_transaction_session_timeout = 0; LISTEN anything")
    await listener.execute("BEGIN; SELECT 1")
    await sender.execute("SET default_transaction_read_only = off; SET statement_timeout = 0")
    with pytest.raises(asyncpg.ProgramLimitExceededError):
        for _ in range(100):
            await sender.execute("SELECT pg_notify('anything', i || repeat('x', 7900)) FROM generate_series(1, 100) AS i")
    return [listener, sender]


@pytest.mark.both_isolations
@pytest.mark.skipif(_major(os.environ.get("BILLINGWATCH_POSTGRES_BIN")) < QUEUE_SINCE, reason="the queue holds 8 GB")
def test_full_notify_queue_fails_no_webhook_call_or_command(small_queue: Any) -> None:
    small_queue.json("tenants", "create", "attacker")
    other = small_queue.json("tenants", "create", "other", "--secret", SECRET)
    analyst = small_queue.json("analysts", "create", "attacker")
    bearer = {"authorization": f"Bearer {other['api_key']}"}

    with small_queue.serving() as served, asyncio.Runner() as runner:
        sessions = runner.run(fill_queue(analyst["dsn"]))
        webhook = f"{served.url}/webhook/{other['webhook_url'].rpartition('/')[2]}"
        delivered = deliver(webhook, "evt_1")
        patched = httpx.patch(f"{served.url}/detectors/large_refund", json={"active": False}, headers=bearer, timeout=60)
        commands = [
            small_queue.run("tenants", "create", "third", check=False),
            small_queue.run("tenants", "secret", "add", "third", SECRET, check=False),
            small_queue.run("detectors", "set", "other", "large_refund", "--on", check=False),
            small_queue.run("tenants", "remove", "third", "--yes", check=False),
        ]
        for session in sessions:
            session.terminate()

    assert (delivered, patched.status_code) == (200, 200)
    assert [(done.returncode, done.stderr) for done in commands if done.returncode] == []
