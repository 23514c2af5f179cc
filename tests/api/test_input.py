"""Hostile input with a valid key: each is refused with a problem that says what is wrong, and none is an internal error."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from billingwatch.api.requests import BODY_LIMIT
from billingwatch.settings import Settings
from billingwatch.tenancy.provision import Provisioned
from billingwatch.tenancy.tenants import Tenant

from .conftest import bearer, raw, running

Acme = tuple[Tenant, Provisioned]
SOME_ID = "0b5c1d8e-0000-4000-8000-000000000000"
REFUSED = {400, 404, 413, 422}


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    with running(raw(settings, api_share=100)) as address:
        yield address


def cursor(document: str) -> str:
    return base64.urlsafe_b64encode(document.encode("utf-8", "surrogatepass")).decode().rstrip("=")


CURSORS = [
    cursor(json.dumps(key))
    for key in (
        ["0001-01-01T00:00:00+23:59", SOME_ID],
        ["9999-12-31T23:59:59-23:59", SOME_ID],
        ["9999-12-31T23:59:59.999999-00:01", SOME_ID],
        ["2026-03-01T00:00:00", SOME_ID],
        ["2026-03-01T00:00:00Z", "a\0b"],
        [253402300800, SOME_ID],
        ["2026-03-01T00:00:00Z"],
        {},
        None,
    )
] + [
    cursor('["2026-03-01T00:00:00Z","\\ud800"]'),
    cursor('["2026-03-01T00:00:00Z","\ud800"]'),
    cursor("[" * 5_000),
    "",
    "=",
    "AAA=AAA",
    "é",
    "\ud7ff",
    "A" * 20_000,
]
INSTANTS = [
    *("0", "0.5", "-1", "1e308", "nan", "inf", "253402300800", "9" * 400, "", " ", "today"),
    *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "10000-01-01T00:00:00Z", "2026-02-30T00:00:00Z"),
    *("2026-03-01T00:00:00Z\0", "٢٠٢٦-03-01T00:00:00Z", "2026-03-01T24:00:01Z", "2026-03-01T00:00:00+99:99"),
]
BODIES = [
    *(b"", b"null", b"[]", b"0", b'""', b"{", b"{}}", b"\xff\xfe{}", b'{"reason": "\xff"}', b'{"reason": "\xed\xa0\x80"}'),
    *(b'{"reason": "\\ud800"}', b'{"reason": "a\\u0000b"}', b'{"reason": 5}', b'{"reason": null}', b'{"reason": "x", "": 1}'),
    *(b"[" * 50_000, b'{"thresholds":' * 4_000, b'{"thresholds": {"min_cases": ' + b"[" * 50_000, b'{"reason": ' + b"[" * 50_000),
    *(b'{"active": 0}', b'{"active": 1.0}', b'{"active": "true"}', b'{"active": NaN}', b'{"active": true, "active": 0}'),
    *(b'{"thresholds": {"min_cases": ' + b"9" * 5_000 + b"}}", b'{"thresholds": {"min_cases": 1e999}}', b'{"thresholds": {"\\ud800": 1}}'),
    *(b'{"thresholds": {"min_cases": true}}', b'{"thresholds": {"min_cases": "7"}}', b'{"thresholds": {"a\\u0000": 1}}'),
    *(b'{"since": 0.5, "reason": "x"}', b'{"since": 253402300800, "reason": "x"}', b'{"until": -1, "reason": "x"}'),
    *(b'{"since": "9999-12-31T23:59:59-23:59", "reason": "x"}', b'{"since": "0001-01-01T00:00:00+23:59", "reason": "x"}'),
    *(b'{"detector": "a\\u0000", "reason": "x"}', b'{"subject": "\\u0000", "reason": "x"}', gzip.compress(b'{"reason": "x"}')),
]
POSTS = [
    *(("POST", f"/anomalies/{SOME_ID}/{verb}") for verb in ("acknowledge", "resolve", "false-positive")),
    ("PATCH", "/detectors/fraud_spike"),
    ("POST", "/detectors/fraud_spike/backtest"),
    ("POST", "/mutes"),
]
IDS = [
    *("%00", "%ff", "%ed%a0%80", "%c0%ae", "a%20b", "%7f", "a" * 300, "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%F0%9F%92%B3"),
    *("0", "-1", "+1", "1.0", "1e3", "0x10", "1_000", "%EF%BC%91", "9" * 20, "9" * 5_000, "null", "'", "%22", "{x}"),
]
QUERIES = [
    *("limit=0", "limit=-1", "limit=501", "limit=1.5", "limit=x", "limit=%00", "limit=" + "9" * 5_000, "limit=", "limit=NaN"),
    *("limit=1&limit=2", "unknown=1", "%ff=1", "=1", "lim%00it=1", "type=", "type=%00", "type=%ff", "type=a%20b", "type=" + "a" * 300),
    *("object_id=%ed%a0%80", "status=closed", "severity=%00", "detector=%00", "muted=maybe", "historical=2"),
]


def described(answer: httpx.Response) -> None:
    """Assert that an answer is a refusal that a client can read."""
    assert answer.status_code in REFUSED
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["detail"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("path", ["/events", "/anomalies"])
async def test_listing_refuses_a_cursor_it_did_not_give_out(http: httpx.AsyncClient, acme: Acme, path: str) -> None:
    for each in CURSORS:
        described(await http.get(path, headers=bearer(acme[1]), params={"cursor": each}))


@pytest.mark.parametrize("path", ["/events", "/anomalies", "/stats/detectors"])
async def test_listing_refuses_what_is_not_an_instant(http: httpx.AsyncClient, acme: Acme, path: str) -> None:
    for name in ("since",) if path.startswith("/stats") else ("since", "until"):
        for each in INSTANTS:
            answer = await http.get(path, headers=bearer(acme[1]), params={name: each})
            described(answer)
            assert name in answer.text, each


async def test_instants_are_accepted_with_and_without_an_offset(http: httpx.AsyncClient, acme: Acme) -> None:
    for each in ("2026-03-01T00:00:00Z", "2026-03-01T00:00:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"):
        for path in ("/events", "/anomalies"):
            for name in ("since", "until"):
                assert (await http.get(path, headers=bearer(acme[1]), params={name: each})).status_code == 200, each


@pytest.mark.parametrize(("method", "path"), POSTS)
async def test_call_refuses_a_body_it_does_not_document(http: httpx.AsyncClient, acme: Acme, method: str, path: str) -> None:
    for body in BODIES:
        answer = await http.request(method, path, headers=bearer(acme[1]), content=body)
        if not (path == "/mutes" and answer.status_code == 201) and not (path.endswith("backtest") and answer.status_code == 200):
            described(answer)
        else:
            pytest.fail(f"{body[:60]!r} was accepted")


async def test_numbers_are_no_booleans_and_nothing_is_set(http: httpx.AsyncClient, acme: Acme) -> None:
    answer = await http.patch("/detectors/fraud_spike", headers=bearer(acme[1]), content=b'{"active": 0}')

    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"message": "Expected `bool | null`, got `int`", "key": "active", "source": "body"}]
    assert (await http.get("/detectors/fraud_spike", headers=bearer(acme[1]))).json()["state"] != "off"


async def test_body_above_the_limit_is_413(http: httpx.AsyncClient, acme: Acme) -> None:
    body = b'{"reason": "' + b"x" * BODY_LIMIT + b'"}'

    async def pieces() -> Any:
        yield body

    answers = [
        await http.request(method, path, headers=bearer(acme[1]), content=content) for method, path in POSTS for content in (body, pieces())
    ]

    assert {answer.status_code for answer in answers} == {413}
    for answer in answers:
        described(answer)


async def test_body_is_json_whatever_its_content_type(http: httpx.AsyncClient, acme: Acme) -> None:
    for kind in ("text/xml", "application/x-www-form-urlencoded", "multipart/form-data", "application/json; charset=utf-16", "\\"):
        headers = bearer(acme[1]) | {"content-type": kind}
        described(await http.post("/mutes", headers=headers, content=b"reason=x"))
        described(await http.post("/mutes", headers=headers, content='{"reason": "x"}'.encode("utf-16")))


async def test_strange_ids_are_refused(http: httpx.AsyncClient, acme: Acme) -> None:
    calls = [
        *(("GET", f"/events/{each}") for each in IDS if each.strip("0123456789_")),
        *(("GET", f"/detectors/{each}") for each in IDS),
        *(("PATCH", f"/detectors/{each}") for each in IDS),
        *(("POST", f"/detectors/{each}/backtest") for each in IDS),
        *(("DELETE", f"/mutes/{each}") for each in IDS),
        *(("GET", f"/anomalies/{each}") for each in IDS),
        *(("POST", f"/anomalies/{each}/resolve") for each in IDS),
    ]

    for method, path in calls:
        described(await exact(http, method, path, bearer(acme[1])))


async def test_strange_queries_are_refused(http: httpx.AsyncClient, acme: Acme) -> None:
    for query in QUERIES:
        for path in ("/events", "/anomalies", "/mutes", "/stats/detectors", "/detectors", f"/anomalies/{SOME_ID}"):
            described(await exact(http, "GET", f"{path}?{query}", bearer(acme[1])))


async def test_unknown_parameter_is_named_with_those_there_are(http: httpx.AsyncClient, acme: Acme) -> None:
    answer = await http.get("/stats/detectors", headers=bearer(acme[1]), params={"sinse": "1d"})
    without_key = await http.get("/stats/detectors", params={"sinse": "1d"})

    assert answer.json()["detail"] == "unknown query parameter `sinse`; choose from `since`"
    assert without_key.status_code == 401


async def exact(http: httpx.AsyncClient, method: str, target: str, headers: dict[str, str]) -> httpx.Response:
    """Send a request whose target is these bytes; a client library would encode them again."""
    host, port = http.base_url.host, http.base_url.port
    reader, writer = await asyncio.open_connection(host, port)
    head = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", "Content-Length: 2"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    writer.write(("\r\n".join(head) + "\r\n\r\n{}").encode())
    answer = await reader.read()
    writer.close()
    top, _, body = answer.partition(b"\r\n\r\n")
    status, *fields = top.decode().split("\r\n")
    return httpx.Response(
        int(status.split()[1]),
        headers=[(name, value.strip()) for name, _, value in (field.partition(":") for field in fields)],
        content=body,
    )
