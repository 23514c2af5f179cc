"""The REST API: the key decides the tenant; listings, lifecycles, errors."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import httpx
import pytest

from billingwatch.settings import Settings
from billingwatch.tenancy.provision import Provisioned
from billingwatch.tenancy.tenants import Tenant

from .conftest import bearer, event, post, running, signature

Acme = tuple[Tenant, Provisioned]
OTHER_SECRET = "whsec_of_the_other_tenant"


def charge(charge_id: str, *, customer: str = "cus_1", amount: int = 4200, created: int) -> dict[str, Any]:
    return {
        "id": charge_id,
        "object": "charge",
        "amount": amount,
        "amount_captured": amount,
        "amount_refunded": 0,
        "captured": True,
        "created": created,
        "currency": "usd",
        "customer": customer,
        "paid": True,
        "payment_intent": f"pi_{charge_id}",
        "refunded": False,
        "status": "succeeded",
        "outcome": {"type": "authorized", "network_status": "approved_by_network"},
    }


async def charged_twice(http: httpx.AsyncClient, made: Provisioned, secret: str, *, customer: str = "cus_1") -> None:
    now = int(time.time())
    for number in (1, 2):
        charged = charge(f"ch_{customer}_{number}", customer=customer, created=now + number)
        body = event(f"evt_{customer}_{number}", created=now + number, data={"object": charged})
        assert (await post(http, made.webhook_token, body, signature(body, secret))).status_code == 200


async def found(http: httpx.AsyncClient, made: Provisioned, count: int = 1) -> list[dict[str, Any]]:
    """The tenant's anomalies once there are `count`."""
    async with asyncio.timeout(20):
        while len(page := (await http.get("/anomalies", headers=bearer(made))).json()["anomalies"]) < count:
            await asyncio.sleep(0.05)
    return page


@pytest.fixture
async def other(provision_tenant: Any) -> Acme:
    return await provision_tenant("other", secrets=(OTHER_SECRET,))


async def test_an_anomaly_is_found_in_what_arrived_and_shown_with_its_evidence(http: httpx.AsyncClient, acme: Acme) -> None:
    await charged_twice(http, acme[1], acme[0].secrets[0])

    listed = await found(http, acme[1])
    shown = (await http.get(f"/anomalies/{listed[0]['anomaly_id']}", headers=bearer(acme[1]))).json()

    assert (shown["detector"], shown["status"], shown["amounts"]) == ("duplicate_charge", "open", {"usd": 4200})
    assert shown["evidence"]["event_ids"] == ["evt_cus_1_1", "evt_cus_1_2"]


@pytest.mark.parametrize("path", ["/anomalies", "/anomalies/0b5c1d8e-0000-4000-8000-000000000000", "/events", "/events/evt_1"])
@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic YTpi", "Bearer " + "x" * 500], ids=str)
async def test_without_a_valid_key_nothing_is_shown(http: httpx.AsyncClient, acme: Acme, path: str, header: str | None) -> None:
    answer = await http.get(path, headers={} if header is None else {"authorization": header})

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.fixture
async def calls(http: httpx.AsyncClient) -> list[tuple[str, str]]:
    """Method and address of every call that is documented; ids in an address are made up."""
    paths = (await http.get("/docs/openapi.json")).json()["paths"]
    made_up = {"name": "duplicate_charge", "mute_id": "7", "event_id": "evt_1", "token": "unknown"}
    return [
        (method.upper(), re.sub(r"\{(\w+)\}", lambda match: made_up.get(match[1], "0b5c1d8e-0000-4000-8000-000000000000"), path))
        for path, methods in paths.items()
        for method in methods
    ]


async def test_every_call_but_those_for_operators_asks_for_a_key(http: httpx.AsyncClient, calls: list[tuple[str, str]]) -> None:
    open_to_all = {("GET", path) for path in ("/health/live", "/health/ready", "/metrics")} | {("POST", "/webhook/unknown")}

    answers = {call: (await http.request(*call, json={})).status_code for call in calls if call not in open_to_all}

    assert len(answers) >= 15
    assert {call: status for call, status in answers.items() if status != 401} == {}


async def test_no_call_of_an_empty_tenant_fails(http: httpx.AsyncClient, acme: Acme, calls: list[tuple[str, str]]) -> None:
    answers = {call: (await http.request(*call, headers=bearer(acme[1]), json={})).status_code for call in calls}

    assert {call: status for call, status in answers.items() if status >= 500} == {}


async def test_a_browser_of_another_origin_is_shown_nothing(http: httpx.AsyncClient, acme: Acme) -> None:
    answer = await http.get("/anomalies", headers={**bearer(acme[1]), "origin": "https://elsewhere.example"})
    asked = await http.options("/anomalies", headers={"origin": "https://elsewhere.example", "access-control-request-method": "GET"})

    assert [header for each in (answer, asked) for header in each.headers if header.startswith("access-control-")] == []


async def test_a_key_shows_its_own_tenant_and_nothing_in_the_request_can_name_another(
    http: httpx.AsyncClient, acme: Acme, other: Acme
) -> None:
    await charged_twice(http, acme[1], acme[0].secrets[0], customer="cus_acme")
    await charged_twice(http, other[1], OTHER_SECRET, customer="cus_other")
    mine = (await found(http, acme[1]))[0]
    theirs = (await found(http, other[1]))[0]
    names = {"tenant": "other", "tenant_id": str(other[0].tenant_id), "schema": other[0].schema_name}
    refused = [await http.get(path, headers=bearer(acme[1]), params=names) for path in ("/anomalies", "/events")]
    headers = bearer(acme[1]) | {"x-tenant-id": str(other[0].tenant_id), "x-tenant": "other"}

    listed = (await http.get("/anomalies", headers=headers)).json()["anomalies"]
    events = (await http.get("/events", headers=headers)).json()["events"]
    strange = [
        await http.get(f"/anomalies/{theirs['anomaly_id']}", headers=headers),
        await http.post(f"/anomalies/{theirs['anomaly_id']}/resolve", headers=headers, json={"reason": "not mine"}),
        await http.get("/events/evt_cus_other_1", headers=headers),
    ]

    assert [answer.status_code for answer in refused] == [400, 400]
    assert [anomaly["anomaly_id"] for anomaly in listed] == [mine["anomaly_id"]]
    assert {row["event_id"] for row in events} == {"evt_cus_acme_1", "evt_cus_acme_2"}
    assert [answer.status_code for answer in strange] == [404, 404, 404]
    assert (await found(http, other[1]))[0]["status"] == "open"


@pytest.mark.parametrize(
    ("verb", "status"), [("acknowledge", "acknowledged"), ("resolve", "resolved"), ("false-positive", "false_positive")]
)
async def test_what_people_say_to_an_anomaly_is_kept_with_its_reason(http: httpx.AsyncClient, acme: Acme, verb: str, status: str) -> None:
    await charged_twice(http, acme[1], acme[0].secrets[0])
    anomaly_id = (await found(http, acme[1]))[0]["anomaly_id"]

    answer = await http.post(f"/anomalies/{anomaly_id}/{verb}", headers=bearer(acme[1]), json={"reason": "the customer asked for two"})
    shown = (await http.get(f"/anomalies/{anomaly_id}", headers=bearer(acme[1]))).json()

    assert answer.status_code == 200
    assert (shown["status"], shown["reason"]) == (status, "the customer asked for two")


async def test_what_people_said_stays_with_its_anomaly_over_a_restart(settings: Settings, acme: Acme) -> None:
    async def said(http: httpx.AsyncClient) -> dict[str, tuple[str, str | None]]:
        return {each["subject"]: (each["status"], each["reason"]) for each in await found(http, acme[1], 2)}

    with running(settings) as url:
        async with httpx.AsyncClient(base_url=url) as http:
            for customer in ("cus_1", "cus_2"):
                await charged_twice(http, acme[1], acme[0].secrets[0], customer=customer)
            first = next(each for each in await found(http, acme[1], 2) if each["subject"].startswith("cus_1"))
            await http.post(f"/anomalies/{first['anomaly_id']}/false-positive", headers=bearer(acme[1]), json={"reason": "two seats"})
            before = await said(http)
    with running(settings) as url:
        async with httpx.AsyncClient(base_url=url) as http:
            await charged_twice(http, acme[1], acme[0].secrets[0], customer="cus_3")
            await found(http, acme[1], 3)
            after = await said(http)

    assert set(before.values()) == {("false_positive", "two seats"), ("open", None)}
    assert {subject: after[subject] for subject in before} == before
    assert [status for subject, (status, _) in after.items() if subject not in before] == ["open"]


async def test_a_closed_anomaly_cannot_be_acknowledged(http: httpx.AsyncClient, acme: Acme) -> None:
    await charged_twice(http, acme[1], acme[0].secrets[0])
    anomaly_id = (await found(http, acme[1]))[0]["anomaly_id"]
    await http.post(f"/anomalies/{anomaly_id}/false-positive", headers=bearer(acme[1]), json={"reason": "two seats"})

    answer = await http.post(f"/anomalies/{anomaly_id}/acknowledge", headers=bearer(acme[1]), json={"reason": "late"})

    assert answer.status_code == 409


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": " \n"}, {"reason": "x", "status": "open"}, {"reason": "a\0b"}, [], None])
async def test_a_verdict_without_a_plain_reason_is_refused(http: httpx.AsyncClient, acme: Acme, body: Any) -> None:
    answer = await http.post("/anomalies/0b5c1d8e-0000-4000-8000-000000000000/resolve", headers=bearer(acme[1]), json=body)

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


async def test_listings_are_filtered(http: httpx.AsyncClient, acme: Acme) -> None:
    await charged_twice(http, acme[1], acme[0].secrets[0])
    await found(http, acme[1])

    async def count(**params: str) -> int:
        return len((await http.get("/anomalies", headers=bearer(acme[1]), params=params)).json()["anomalies"])

    assert await count(detector="duplicate_charge", status="open") == 1
    assert await count(detector="fraud_spike") == 0
    assert await count(status="resolved") == 0
    assert await count(since="2020-01-01T00:00:00Z") == 1
    assert await count(until="2020-01-01T00:00:00Z") == 0


@pytest.mark.parametrize(
    "params",
    [{"limit": "0"}, {"limit": "501"}, {"limit": "many"}, {"status": "new"}, {"since": "yesterday"}, {"cursor": "???"}, {"cursor": "WzFd"}],
    ids=str,
)
async def test_a_listing_asked_for_wrongly_says_what_is_wrong(http: httpx.AsyncClient, acme: Acme, params: dict[str, str]) -> None:
    answer = await http.get("/anomalies", headers=bearer(acme[1]), params=params)

    assert answer.status_code == 400
    assert answer.json()["title"] == "Bad request"


async def test_a_listing_of_a_detector_that_there_is_not_is_not_found(http: httpx.AsyncClient, acme: Acme) -> None:
    answer = await http.get("/anomalies", headers=bearer(acme[1]), params={"detector": "fraud"})

    assert (answer.status_code, answer.json()["detail"]) == (404, "there is no detector `fraud`")


async def test_pages_of_events_hold_each_event_once_newest_first(http: httpx.AsyncClient, acme: Acme) -> None:
    for number in range(7):
        await post(http, acme[1].webhook_token, event(f"evt_{number}"))

    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await http.get("/events", headers=bearer(acme[1]), params={"limit": "3"} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [row["event_id"] for row in page["events"]]
        cursor = page["next_cursor"]

    assert seen == [f"evt_{number}" for number in reversed(range(7))]


async def test_an_event_is_shown_with_its_payload_as_received(http: httpx.AsyncClient, acme: Acme) -> None:
    body = b'{ "id": "evt_exact",\n "type":"a.b", "created":1700000000, "livemode": true, "amount": 1.10, "same": 1, "same": 2}'

    await post(http, acme[1].webhook_token, body)
    answer = await http.get("/events/evt_exact", headers=bearer(acme[1]))

    assert body in answer.content
    assert json.loads(answer.content)["type"] == "a.b"


async def test_an_event_tells_what_became_of_it(http: httpx.AsyncClient, acme: Acme) -> None:
    await post(http, acme[1].webhook_token, event("evt_test", livemode=False))
    await post(
        http,
        acme[1].webhook_token,
        event("evt_bad", kind="charge.succeeded", data={"object": {"object": "charge", "id": "ch_1", "amount": "much"}}),
    )
    await post(http, acme[1].webhook_token, event("evt_good"))
    async with asyncio.timeout(20):
        while (
            "pending"
            in (
                states := {row["event_id"]: row["status"] for row in (await http.get("/events", headers=bearer(acme[1]))).json()["events"]}
            ).values()
        ):
            await asyncio.sleep(0.05)
    failed = (await http.get("/events/evt_bad", headers=bearer(acme[1]))).json()

    assert states == {"evt_test": "ignored", "evt_bad": "failed", "evt_good": "processed"}
    assert failed["error"]


async def test_health_and_metrics_need_no_key_and_name_no_tenant(http: httpx.AsyncClient, acme: Acme) -> None:
    await post(http, acme[1].webhook_token, event())

    live, ready, metrics = [await http.get(path) for path in ("/health/live", "/health/ready", "/metrics")]

    assert (live.status_code, ready.status_code, metrics.status_code) == (200, 200, 200)
    assert 'billingwatch_events_total{outcome="recorded"}' in metrics.text
    for name in ("acknowledgement_seconds", "backlog_events", "backlog_age_seconds", "lane_tenants", "lane_connected"):
        assert f"billingwatch_{name}" in metrics.text
    assert "acme" not in metrics.text


async def test_an_unknown_path_is_a_problem(http: httpx.AsyncClient) -> None:
    answer = await http.get("/nothing/here")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_the_openapi_page_needs_nothing_from_elsewhere(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs/")
    document = (await http.get("/docs/openapi.json")).json()
    script = await http.get("/docs/assets/swagger-ui-bundle.js")

    assert page.status_code == 200
    assert "https://" not in page.text.replace("https://spec.openapis.org", "").replace("https://json-schema.org", "")
    assert script.status_code == 200
    assert {"/detectors/{name}/backtest", "/mutes/{mute_id}", "/stats/detectors"} <= set(document["paths"])
    assert {"/anomalies", "/anomalies/{anomaly_id}/false-positive", "/events/{event_id}", "/health/ready", "/metrics"} <= set(
        document["paths"]
    )
