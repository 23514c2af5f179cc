"""Every signed body with an id is answered 200 and kept byte for byte, whatever else is in it."""

from __future__ import annotations

import asyncio
import base64
import hmac
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as fuzz
from hypothesis import strategies as st
from structlog.testing import capture_logs

from billingwatch.clock import utc_now
from billingwatch.replay import Replay, split_events
from billingwatch.settings import Settings
from billingwatch.tenancy.provision import Provisioned
from billingwatch.tenancy.tenants import Tenant

from .conftest import SECRET, bearer, event, post, raw, running

Acme = tuple[Tenant, Provisioned]
EXAMPLES = 300

GOOD = event("evt_1")
UGLY: dict[str, bytes] = {
    "lone surrogate": GOOD.replace(b"we_1", b"\\ud83d"),
    "object is a list": event(data={"object": []}),
    "object is a number": event(data={"object": 7}),
    "data is missing": b'{"id": "evt_1", "type": "a.b", "created": 1, "livemode": true}',
    "id alone": b'{"id": "evt_1"}',
    "type of another kind": event(type=7),
    "created of another kind": GOOD.replace(b'"created"', b'"created": "now", "x"'),
    "livemode of another kind": GOOD.replace(b'"livemode": true', b'"livemode": "true"'),
    "names twice": GOOD.replace(b'"id"', b'"id": 7, "type": {}, "id"', 1),
    "100,000 lists": GOOD.replace(b'"we_1"', b"[" * 100_000 + b"]" * 100_000),
    "100,000 objects": GOOD.replace(b'"we_1"', b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "NaN": GOOD.replace(b'"we_1"', b"NaN"),
    "10,000 digits": GOOD.replace(b'"we_1"', b"9" * 10_000),
    "NUL escape": GOOD.replace(b"we_1", b"\\u0000"),
    "NUL byte": GOOD.replace(b"we_1", b"\0"),
    "cut off": GOOD[: GOOD.index(b"endive")],
    "not UTF-8": GOOD.replace(b"we_1", b"\xff\xed\xa0\xbd"),
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "garbage behind it": GOOD + b"}\xff<html>",
}


def signed(body: bytes) -> str:
    at = int(time.time())
    return f"t={at},v1={hmac.digest(SECRET.encode(), b'%d.' % at + body, 'sha256').hex()}"


def stored_body(answer: httpx.Response) -> bytes:
    """Return the body of an event as `GET /events/{id}` shows it."""
    shown = json.loads(answer.content, parse_int=float)  # int() refuses more than 4,300 digits
    if shown["body"] is not None:
        assert shown["payload"] is None
        return base64.b64decode(shown["body"])
    start = answer.content.index(b'"payload":') + len(b'"payload":')
    return answer.content[start : answer.content.rindex(b',"body":null')]


@pytest.mark.parametrize("body", UGLY.values(), ids=UGLY)
async def test_signed_body_with_an_id_is_stored_and_shown_as_signed(http: httpx.AsyncClient, acme: Acme, body: bytes) -> None:
    _, made = acme

    with capture_logs() as logs:
        answer = await post(http, made.webhook_token, body, signed(body))
        again = await post(http, made.webhook_token, body, signed(body))
        async with asyncio.timeout(20):
            while b'"status":"pending"' in (shown := await http.get("/events/evt_1", headers=bearer(made))).content:
                await asyncio.sleep(0.05)

    assert (answer.status_code, answer.json(), again.json()) == (200, {"status": "ok"}, {"status": "ok", "duplicate": True})
    assert stored_body(shown) == body
    assert b'"deliveries":2,' in shown.content
    assert not [entry for entry in logs if entry["log_level"] == "error"]


async def test_exported_bodies_are_replayed_into_another_tenant(
    http: httpx.AsyncClient, acme: Acme, provision_tenant: Any, database: str
) -> None:
    other, made = await provision_tenant("other")
    bodies = [body.replace(b"evt_1", b"evt_%d" % number, 1) for number, body in enumerate(UGLY.values())]
    for body in bodies:
        assert (await post(http, acme[1].webhook_token, body, signed(body))).status_code == 200
    exported = [stored_body(await http.get(f"/events/evt_{number}", headers=bearer(acme[1]))) for number in range(len(bodies))]

    with capture_logs():
        done = await Replay(database, other, utc_now).run(split_events(b"\n".join(exported)))

    assert exported == bodies
    assert (done.recorded, done.refused) == (len(bodies), [])
    for number, body in enumerate(bodies):
        assert stored_body(await http.get(f"/events/evt_{number}", headers=bearer(made))) == body


def json_values() -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=10
    )


NAMES = st.sampled_from(["type", "created", "livemode", "account", "api_version", "data", "object", "context", "related_object"])
MEMBERS = st.dictionaries(NAMES, json_values() | json_values().map(lambda value: {"object": {"id": value}}), max_size=4)
TAILS = st.just(b"}") | st.binary(max_size=40).filter(lambda tail: b'id"' not in tail and b"\\u" not in tail)


def test_fuzzed_bodies_with_an_id_are_answered_200_and_stored(acme: Acme, settings: Settings) -> None:
    _, made = acme
    numbers: Iterator[int] = itertools.count()

    with capture_logs() as logs, running(raw(settings, rate_limit=10_000)) as url, httpx.Client(base_url=url, timeout=30) as http:

        @fuzz(max_examples=EXAMPLES)
        @given(MEMBERS, TAILS)
        def post_one(members: dict[str, Any], tail: bytes) -> None:
            event_id = f"evt_{next(numbers)}"
            body = json.dumps({**members, "id": event_id}).encode()[:-1] + tail
            answer = http.post(f"/webhook/{made.webhook_token}", content=body, headers={"stripe-signature": signed(body)})
            assert answer.status_code == 200, answer.text
            assert stored_body(http.get(f"/events/{event_id}", headers=bearer(made))) == body

        post_one()

    assert next(numbers) >= EXAMPLES
    assert not [entry for entry in logs if entry["log_level"] == "error"]


def test_fuzzed_bytes_are_never_an_internal_error(acme: Acme, settings: Settings) -> None:
    _, made = acme

    with capture_logs() as logs, running(raw(settings, rate_limit=10_000)) as url, httpx.Client(base_url=url, timeout=30) as http:

        @fuzz(max_examples=EXAMPLES)
        @given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda middle: b'{"id": "evt_' + middle + b'"}'))
        def post_one(body: bytes) -> None:
            answer = http.post(f"/webhook/{made.webhook_token}", content=body, headers={"stripe-signature": signed(body)})
            assert answer.status_code in {200, 400}, answer.text

        post_one()

    assert not [entry for entry in logs if entry["log_level"] == "error"]
