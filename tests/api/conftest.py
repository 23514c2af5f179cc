"""Fixtures: the real application behind a real socket, and Stripe's way of posting to it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec
import pytest
import stripe
import uvicorn

from billingwatch.app import create_app
from billingwatch.server.config import server_config
from billingwatch.settings import Settings
from billingwatch.tenancy.provision import Provisioned
from billingwatch.tenancy.tenants import Tenant

SECRET = "whsec_test_secret_of_the_first_tenant"


@contextmanager
def running(settings: Settings, *, processing: bool = True, **options: Any) -> Iterator[str]:
    """The application served from a thread, on a port that the system hands out."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(settings, settings.database_url or "", processing=processing, **options)
    server = uvicorn.Server(server_config(app, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    with running(settings) as address:
        yield address


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture
async def acme(provision_tenant: Any) -> tuple[Tenant, Provisioned]:
    return await provision_tenant("acme", secrets=(SECRET,))


def event(event_id: str = "evt_1", *, kind: str = "charge.succeeded", created: int | None = None, **fields: Any) -> bytes:
    """A body as Stripe posts it; `fields` replace top-level ones."""
    body = {
        "id": event_id,
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": created or int(time.time()),
        "livemode": True,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
        "data": {"object": {"id": "we_1", "object": "something_else"}},
        **fields,
    }
    return json.dumps(body).encode()


def signature(body: bytes, secret: str = SECRET, *, at: float | None = None) -> str:
    header: str = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, int(time.time() if at is None else at))
    return header


async def post(http: httpx.AsyncClient, token: str, body: bytes, header: str | None = None, **options: Any) -> httpx.Response:
    """Post as Stripe does; signed with the first tenant's secret unless a header is given."""
    headers = {"content-type": "application/json", "stripe-signature": signature(body) if header is None else header}
    return await http.post(f"/webhook/{token}", content=body, headers=headers, **options)


def bearer(provisioned: Provisioned) -> dict[str, str]:
    return {"authorization": f"Bearer {provisioned.api_key}"}


def raw(settings: Settings, **changes: Any) -> Settings:
    return msgspec.structs.replace(settings, **changes)
