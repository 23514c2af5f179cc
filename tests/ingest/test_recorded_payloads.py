"""The payload stays what was signed, byte for byte, so that it can be verified again."""

from __future__ import annotations

import contextlib
import json
import random
from datetime import UTC, datetime

import asyncpg
import msgspec
import pytest
import stripe
from hypothesis import given, settings
from hypothesis import strategies as st

from billingwatch.errors import EventMalformed
from billingwatch.ingest.envelope import read_envelope
from billingwatch.ingest.events import get_event
from billingwatch.ingest.record import Delivery, record_all, record_events, signed_text
from billingwatch.ingest.signature import verify

SECRET = "whsec_the_secret_of_this_tenant"
T = 1_700_000_000
NOW = datetime.fromtimestamp(T, UTC)
HEAD = '"id": "evt_1", "object": "event", "type": "ping", "created": 1700000000, "livemode": true'
PAYLOADS = [
    f"{{{HEAD}}}",
    f"{{{HEAD}}}\n",
    f"\r\n \t{{{HEAD}}}  \n\n",
    f"{{\n  {HEAD.replace(', ', ',  ')}\n}}",
    f'{{"id": "evt_0", {HEAD}, "amount": 1, "amount": 2}}',  # jsonb would keep one
    f'{{{HEAD}, "z": 1, "a": 2, "m": {{"b": 1, "a": 2}}}}',  # jsonb would sort
    f'{{{HEAD}, "numbers": [1.0, 1.00, 1e2, 1E+2, -0, -0.0, 0.10, 123456789012345678901234567890, 1e-400]}}',
    f'{{{HEAD}, "escapes": "\\u0000 \\u005a \\/ \\ud83c\\udf89 \\"\\\\ \\b\\f\\n\\r\\t"}}',  # jsonb refuses a NUL
    f'{{{HEAD}, "unicode": "Zoë 日本 🎉 \u2028\u2029\u00ad\ufffd\u0301"}}',
    f'{{{HEAD}, "": {{"": [[], {{}}, [null, true, false]]}}}}',
    f'{{{HEAD}, "long": "{"x" * 900_000}"}}',
    f'{{{HEAD}, "deep": {"[" * 500}{"]" * 500}}}',
]


async def test_a_payload_is_stored_as_it_was_signed(control, tenant, tenant_connection):
    for number, plain in enumerate(PAYLOADS):
        event_id = f"evt_a{number}"
        payload = plain.replace("evt_1", event_id)
        signature = stripe.WebhookSignature.generate_signature_header(payload=payload, secret=SECRET, timestamp=T)

        await record_events(control, [delivered(tenant, payload)])

        stored = await tenant_connection.fetchval("SELECT payload FROM events WHERE event_id = $1", event_id)
        assert stored.encode() == payload.encode()
        assert verify(stored, signature, [SECRET], as_of=NOW) == NOW
        event = await get_event(tenant_connection, tenant.tenant_id, event_id)
        # As part of an answer it is the same value; only the whitespace around it is the envelope's.
        assert msgspec.json.decode(event.payload) == msgspec.json.decode(payload)


async def test_whatever_text_an_event_holds_is_stored_as_it_was_signed(control, tenant, tenant_connection):
    seen: list[str] = []

    @given(
        st.dictionaries(st.text(), st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False), max_size=4), st.booleans()
    )
    @settings(max_examples=60)
    def collect(value: object, ascii_only: bool) -> None:
        extra = json.dumps(value, ensure_ascii=ascii_only)
        seen.append(f'{{"id": "evt_{len(seen)}", "object": "event", "type": "ping", "created": 1700000000, "x": {extra}}}')

    collect()
    flags = await record_events(control, [delivered(tenant, payload) for payload in seen])

    assert all(flags)
    stored = {row["event_id"]: row["payload"] for row in await tenant_connection.fetch("SELECT event_id, payload FROM events")}
    assert stored == {f"evt_{number}": payload for number, payload in enumerate(seen)}


async def test_a_disposition_that_there_is_not_is_refused_with_its_whole_batch(control, tenant, tenant_connection):
    known = delivered(tenant, PAYLOADS[0])
    unknown = msgspec.structs.replace(delivered(tenant, PAYLOADS[0].replace("evt_1", "evt_2")), disposition="lost")

    with pytest.raises(asyncpg.CheckViolationError, match="a disposition that there is not"):
        await record_events(control, [known, unknown])

    assert await tenant_connection.fetchval("SELECT count(*) FROM events") == 0


async def test_recording_nothing_is_nothing(control):
    assert await record_events(control, []) == []


async def test_the_columns_say_what_the_envelope_says(control, tenant, tenant_connection):
    payload = (
        '{"id": "evt_9", "object": "event", "type": "invoice.paid", "created": 1700000000, "livemode": true, '
        '"api_version": "2026-10-28.endive", "account": "acct_2", "data": {"object": {"id": "in_1"}}}'
    )

    await record_events(control, [delivered(tenant, payload)])

    row = await tenant_connection.fetchrow(
        "SELECT event_id, type, api_version, livemode, account, object_id, occurred_at, signed_at, received_at, last_received_at,"
        " deliveries, disposition FROM events"
    )
    assert tuple(row) == ("evt_9", "invoice.paid", "2026-10-28.endive", True, "acct_2", "in_1", NOW, NOW, NOW, NOW, 1, "process")


def delivered(tenant, payload: str | bytes) -> Delivery:
    envelope = read_envelope(payload.encode() if isinstance(payload, str) else payload)
    return Delivery(
        tenant=tenant, envelope=envelope, disposition=envelope.disposition(tenant.mode), payload=payload, received_at=NOW, signed_at=NOW
    )


async def test_mutated_bodies_with_an_id_are_stored_byte_for_byte(control, tenant, tenant_connection):
    rng = random.Random(7)
    event = f'{{{HEAD}, "data": {{"object": {{"id": "ch_1", "n": [1, -2.5e3, null, true], "s": "a\\u00e9\\n"}}}}}}'.encode()
    bodies: dict[str, bytes] = {}
    for number in range(1000):
        mutant = bytearray(event.replace(b"evt_1", b"evt_%d" % number))
        for _ in range(rng.randint(1, 3)):
            place, byte = rng.randrange(len(mutant)), rng.choice(b'{}[]",:\\u0e19+-. \t\n\x00\x01\x7f\xc3')
            mutant[place : place + rng.randint(0, 1)] = bytes([byte])
        with contextlib.suppress(EventMalformed):
            bodies.setdefault(read_envelope(bytes(mutant)).event_id, bytes(mutant))

    await record_all(control, [delivered(tenant, signed_text(body)) for body in bodies.values()])

    stored = {row["event_id"]: row for row in await tenant_connection.fetch("SELECT event_id, payload, body FROM events")}
    assert {event_id: row["body"] or row["payload"].encode() for event_id, row in stored.items()} == bodies
    assert len(bodies) > 800
    assert len([row for row in stored.values() if row["body"] is not None]) > 100
    assert all((row["body"] is None) == (row["payload"] != "null") for row in stored.values())
