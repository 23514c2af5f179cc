"""The envelope of every event that Stripe sends is read, and everything else is one error."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billingwatch.errors import EventMalformed
from billingwatch.ingest.envelope import Envelope, read_envelope

CREATED = 1_700_000_000
SNAPSHOT: dict[str, Any] = {
    "id": "evt_1",
    "object": "event",
    "api_version": "2026-10-28.endive",
    "created": CREATED,
    "data": {"object": {"id": "ch_1", "object": "charge", "amount": 1999}},
    "livemode": True,
    "pending_webhooks": 1,
    "request": {"id": "req_1", "idempotency_key": None},
    "type": "charge.succeeded",
}
THIN: dict[str, Any] = {
    "id": "evt_test_1",
    "object": "v2.core.event",
    "type": "v1.invoice.paid",
    "created": "2026-09-20T12:00:00.123Z",
    "livemode": False,
    "context": "acct_1",
    "related_object": {"id": "in_1", "type": "invoice", "url": "/v1/invoices/in_1"},
    "reason": {"type": "request", "request": {"id": "req_1", "idempotency_key": "k"}},
}


def read(event: object) -> Envelope:
    return read_envelope(json.dumps(event).encode())


def without(event: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in names}


def test_a_snapshot_event_is_read():
    assert read(SNAPSHOT) == Envelope(
        event_id="evt_1",
        type="charge.succeeded",
        api_version="2026-10-28.endive",
        livemode=True,
        account=None,
        object_id="ch_1",
        occurred_at=datetime.fromtimestamp(CREATED, UTC),
        thin=False,
    )


def test_a_thin_event_is_read():
    assert read(THIN) == Envelope(
        event_id="evt_test_1",
        type="v1.invoice.paid",
        api_version=None,
        livemode=False,
        account="acct_1",
        object_id="in_1",
        occurred_at=datetime(2026, 9, 20, 12, 0, 0, 123000, UTC),
        thin=True,
    )


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"api_version": None}, {"api_version": None}),
        ({"request": None}, {}),
        ({"request": "req_1"}, {}),  # before 2017
        ({"account": "acct_2"}, {"account": "acct_2"}),
        ({"account": None}, {"account": None}),
        ({"context": "acct_2"}, {"account": "acct_2"}),  # an organization's endpoint
        ({"user_id": "acct_2"}, {"account": "acct_2"}),  # until 2017-05-25
        ({"user_id": 2}, {"account": None}),
        ({"type": "something.nobody.knows"}, {"type": "something.nobody.knows"}),
        ({"object": None}, {"thin": False}),
        ({"data": None}, {"object_id": None}),
        ({"data": {}}, {"object_id": None}),
        ({"data": {"object": None}}, {"object_id": None}),
        ({"data": {"object": {"object": "invoice", "billing_reason": "upcoming"}}}, {"object_id": None}),  # invoice.upcoming has no id
        ({"data": {"object": {"id": None}}}, {"object_id": None}),
        ({"data": {"object": {"id": 7}}}, {"object_id": None}),
        ({"data": {"object": {"id": "in_1", "deleted": True}}}, {"object_id": "in_1"}),
        ({"data": {"object": {"id": "a\0b" + "c" * 300}}}, {"object_id": "ab" + "c" * 252}),
        ({"livemode": False}, {"livemode": False}),
        ({"new_field": {"of": ["the", "future"]}}, {}),
    ],
)
def test_whatever_stripe_leaves_out_or_adds_is_read(change, facts):
    envelope = read(SNAPSHOT | change)

    assert {name: getattr(envelope, name) for name in facts} == facts


def test_an_event_of_2011_and_one_without_an_account_are_read():
    envelope = read(without(SNAPSHOT, "api_version", "object", "request", "pending_webhooks"))

    assert (envelope.api_version, envelope.account, envelope.thin) == (None, None, False)


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"context": None}, {"account": None}),
        ({"context": ""}, {"account": None}),
        ({"context": "org_1/acct_2"}, {"account": "acct_2"}),
        ({"context": {"id": "acct_2"}}, {"account": None}),
        ({"context": "acct_" + "\0" * 3 + "x" * 1000}, {"account": "acct_" + "x" * 247}),
        ({"account": "acct_3"}, {"account": "acct_3"}),
        ({"related_object": None}, {"object_id": None}),
        ({"related_object": {}}, {"object_id": None}),
        ({"data": {"object": {"id": "ch_1"}}}, {"object_id": "in_1"}),
        ({"created": CREATED}, {"occurred_at": datetime.fromtimestamp(CREATED, UTC)}),
    ],
)
def test_whatever_a_thin_event_leaves_out_is_read(change, facts):
    envelope = read(THIN | change)

    assert {name: getattr(envelope, name) for name in facts} == facts
    assert envelope.thin


@pytest.mark.parametrize(
    ("created", "occurred_at"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (-5, datetime(1970, 1, 1, tzinfo=UTC)),
        (1_700_000_000.5, datetime.fromtimestamp(1_700_000_000.5, UTC)),
        (4_102_444_800, datetime(2100, 1, 1, tzinfo=UTC)),  # a test clock runs ahead
        (253_402_300_799, datetime(9999, 1, 1, tzinfo=UTC)),
        (10**18, datetime(9999, 1, 1, tzinfo=UTC)),
        (10**30, datetime(9999, 1, 1, tzinfo=UTC)),
        ("2026-09-20T12:00:00Z", datetime(2026, 9, 20, 12, tzinfo=UTC)),
        ("2026-09-20T14:00:00+02:00", datetime(2026, 9, 20, 12, tzinfo=UTC)),
        ("2026-09-20T12:00:00", datetime(2026, 9, 20, 12, tzinfo=UTC)),
        ("2026-09-20 12:00:00.123456789Z", datetime(2026, 9, 20, 12, 0, 0, 123457, UTC)),
    ],
)
def test_created_is_an_instant_in_utc_that_postgres_can_hold(created, occurred_at):
    envelope = read(SNAPSHOT | {"created": created})

    assert envelope.occurred_at == occurred_at
    assert envelope.occurred_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "created",
    [None, True, "", "yesterday", "1700000000", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-13-01T00:00:00Z", [], {}],
)
def test_created_that_is_no_instant_is_refused(created):
    with pytest.raises(EventMalformed):
        read(SNAPSHOT | {"created": created})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"\0",
        b"null",
        b"[]",
        b"{}",
        b'"evt_1"',
        b"hello=world",
        b"<xml/>",
        b'{"id": "evt_1"',
        b'{"id": "evt_1"}',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        json.dumps(SNAPSHOT).encode() + b"x",
        json.dumps([SNAPSHOT]).encode(),
        json.dumps(SNAPSHOT).encode("utf-16"),
        json.dumps(SNAPSHOT).replace(str(CREATED), "NaN").encode(),
        json.dumps(SNAPSHOT).replace(str(CREATED), "1e999999").encode(),
        json.dumps(SNAPSHOT).replace("evt_1", "evt_\\ud800").encode(),
        json.dumps(SNAPSHOT).replace('"ch_1"', "[" * 100_000 + "]" * 100_000).encode(),
        json.dumps(SNAPSHOT).replace('"ch_1"', '{"a":' * 100_000 + "1" + "}" * 100_000).encode(),
    ],
)
def test_what_is_no_event_is_refused(body):
    with pytest.raises(EventMalformed, match=r"the body is not a Stripe event: ."):
        read_envelope(body)


@pytest.mark.parametrize("name", ["id", "type", "created"])
def test_an_event_without_what_recording_needs_is_refused(name):
    with pytest.raises(EventMalformed, match=name):
        read(without(SNAPSHOT, name))


@pytest.mark.parametrize("name", ["id", "type", "api_version", "account"])
@pytest.mark.parametrize("value", ["", " ", "a b", "a\0", "a\n", "é", "a" * 256, 7, True, [], {"id": "evt_1"}])
def test_a_word_that_is_none_is_refused(name, value):
    with pytest.raises(EventMalformed):
        read(SNAPSHOT | {name: value})


@pytest.mark.parametrize("value", [None, "true", 1, 0, []])
def test_livemode_is_yes_or_no(value):
    with pytest.raises(EventMalformed):
        read(SNAPSHOT | {"livemode": value})


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_malformed(body):
    with pytest.raises(EventMalformed):
        read_envelope(body)


@st.composite
def almost_events(draw: st.DrawFn) -> dict[str, Any]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["evt_1", CREATED, "acct_1"])
    anything = st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8
    )
    event = dict(draw(st.sampled_from([SNAPSHOT, THIN])))
    for name in draw(st.lists(st.sampled_from([*SNAPSHOT, *THIN, "account"]), max_size=3)):
        event[name] = draw(anything | anything.map(lambda value: {"object": {"id": value}}) | anything.map(lambda value: {"id": value}))
    return event


@given(almost_events())
def test_an_almost_event_is_read_into_what_postgres_can_hold_or_refused(event):
    try:
        envelope = read(event)
    except EventMalformed:
        return

    words = (envelope.event_id, envelope.type, envelope.api_version, envelope.account, envelope.object_id)
    assert all("\0" not in word and 0 < len(word) <= 255 for word in words if word is not None)
    assert all(word.encode() for word in words if word is not None)
    assert datetime(1, 1, 1, tzinfo=UTC) <= envelope.occurred_at.astimezone(UTC)


@pytest.mark.parametrize(
    ("event", "mode", "disposition"),
    [
        (SNAPSHOT, "live", "process"),
        (SNAPSHOT, "test", "ignored"),
        (SNAPSHOT | {"livemode": False}, "live", "ignored"),
        (SNAPSHOT | {"livemode": False}, "test", "process"),
        (THIN, "test", "needs_fetch"),
        (THIN, "live", "ignored"),
        (THIN | {"livemode": True}, "live", "needs_fetch"),
    ],
)
def test_the_mode_of_the_tenant_decides_what_becomes_of_an_event(event, mode, disposition):
    assert read(event).disposition(mode) == disposition
