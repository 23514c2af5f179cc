"""An independent Stripe: localstripe signs and posts its own events; ours must read what it sends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import httpx
import pytest

from billingwatch.postgres.embedded import EmbeddedServer

pytestmark = pytest.mark.both_isolations
SECRET = "whsec_shared_with_localstripe"
KEY = "sk_test_12345"
GOOD_CARD = {"card[number]": "4242424242424242", "card[exp_month]": "12", "card[exp_year]": "2030", "card[cvc]": "123"}
# It keeps its state in a file that all users of a machine would share.
LAUNCH = """
import builtins, sys
import localstripe.resources
from localstripe.server import start
state = sys.argv.pop(1)
localstripe.resources.open = lambda path, mode: builtins.open(state, mode)
start()
"""
REFUSED_DEBIT = {
    "sepa_debit[iban]": "DE62370400440532013001",
    "billing_details[name]": "Poor",
    "billing_details[email]": "poor@example.com",
}


@pytest.fixture
def localstripe(tmp_path: Any) -> Iterator[httpx.Client]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(tmp_path / "state"), "--port", str(port), "--from-scratch"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=(KEY, ""), timeout=30) as client:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(httpx.HTTPError):
                client.get("/v1/customers")
                break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield client
    process.terminate()
    process.wait()


def call(stripe: httpx.Client, path: str, **form: str) -> Any:
    answer = stripe.post(path, data=form)
    assert answer.status_code in {200, 402}, answer.text
    return answer.json()


def register(stripe: httpx.Client, url: str) -> None:
    assert stripe.post("/_config/webhooks/ours", json={"url": url, "secret": SECRET}).status_code == 200


async def test_a_customers_life_at_another_stripe_arrives_in_our_tables(installation: Any, localstripe: httpx.Client) -> None:
    made = installation.json("tenants", "create", "acme", "--mode", "test", "--secret", SECRET)
    path = "/webhook/" + made["webhook_url"].rpartition("/")[2]

    with installation.serving() as served, EmbeddedServer.acquire(installation.directory) as server:
        register(localstripe, served.url + path)
        plan = call(localstripe, "/v1/plans", amount="2500", currency="eur", interval="month", **{"product[name]": "Basic"})
        good = call(localstripe, "/v1/customers", email="good@example.com")
        card = call(localstripe, "/v1/tokens", **GOOD_CARD)
        call(localstripe, f"/v1/customers/{good['id']}/sources", source=card["id"])
        subscription = call(localstripe, "/v1/subscriptions", customer=good["id"], **{"items[0][plan]": plan["id"]})
        poor = call(localstripe, "/v1/customers", email="poor@example.com")
        debit = call(localstripe, "/v1/payment_methods", type="sepa_debit", **REFUSED_DEBIT)
        call(localstripe, f"/v1/payment_methods/{debit['id']}/attach", customer=poor["id"])
        call(localstripe, f"/v1/customers/{poor['id']}", **{"invoice_settings[default_payment_method]": debit["id"]})
        unpaid = call(localstripe, "/v1/subscriptions", customer=poor["id"], **{"items[0][plan]": plan["id"]})
        connection = await asyncpg.connect(server.dsn, server_settings={"search_path": made["schema"]})
        rows = await _await_rows(connection)
        await connection.close()

    assert {row["customer_id"] for row in rows["customers"]} == {good["id"], poor["id"]}
    assert {row["subscription_id"] for row in rows["subscriptions"]} == {subscription["id"], unpaid["id"]}
    assert ("paid", 2500, "eur", subscription["id"]) in {
        (row["status"], row["total"], row["currency"], row["subscription_id"]) for row in rows["invoices"]
    }
    assert ("open", poor["id"]) in {(row["status"], row["customer_id"]) for row in rows["invoices"]}
    assert {row["status"] for row in rows["subscriptions"] if row["customer_id"] == poor["id"]} == {"canceled"}
    assert rows["failed"] == []


async def _await_rows(connection: asyncpg.Connection) -> dict[str, list[asyncpg.Record]]:
    """What our tables hold once one invoice is paid, the other is not and its subscription has ended; localstripe posts a second after the fact."""
    deadline = time.monotonic() + 30
    while True:
        rows = {table: await connection.fetch(f"SELECT * FROM {table}") for table in ("customers", "subscriptions", "invoices")}
        rows["failed"] = await connection.fetch("SELECT event_id, error FROM control.dead_letters")
        settled = {row["status"] for row in rows["invoices"]} == {"paid", "open"}
        if settled and {row["status"] for row in rows["subscriptions"]} > {"canceled"}:
            return rows
        assert time.monotonic() < deadline, {
            name: [(row.get("status"), row.get("customer_id")) for row in found] for name, found in rows.items()
        }
        await asyncio.sleep(0.2)
