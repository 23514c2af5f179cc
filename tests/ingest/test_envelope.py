"""The envelope of every body with an id is read, whatever else is in it; a body without one is one error."""

from __future__ import annotations

import json
import time
import timeit
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
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


def json_values() -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["evt_1", '"id"', "{", "]"])
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=20
    )


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
def test_created_that_is_no_instant_reads_as_none(created):
    assert read(SNAPSHOT | {"created": created}) == msgspec.structs.replace(read(SNAPSHOT), occurred_at=None)


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
        b'{"id": "evt_1',
        b'{"id": 7}',
        b'{"id": "evt_1}',
        b'{"data": {"id": "evt_1"}}',
        b'["id", "evt_1"]',
        b'"id": "evt_1"',
        b'x{"id": "evt_1"}',
        b'{} {"id": "evt_1"}',
        b'{"\\ud800": "id", id: "evt_1"}',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        json.dumps([SNAPSHOT]).encode(),
        json.dumps(SNAPSHOT).encode("utf-16"),
        json.dumps(SNAPSHOT).replace("evt_1", "evt_\\ud800").encode(),
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
)
def test_what_is_no_event_is_refused(body):
    with pytest.raises(EventMalformed, match=r"the body is not a Stripe event: ."):
        read_envelope(body)


def test_event_without_id_is_refused():
    with pytest.raises(EventMalformed, match="no usable `id`"):
        read(without(SNAPSHOT, "id"))


@pytest.mark.parametrize(("name", "field", "default"), [("type", "type", "unknown"), ("created", "occurred_at", None)])
def test_event_without_type_or_created_reads_with_defaults(name, field, default):
    assert read(without(SNAPSHOT, name)) == msgspec.structs.replace(read(SNAPSHOT), **{field: default})


NO_WORDS = ["", " ", "a b", "a\0", "a\n", "é", "a" * 256, 7, True, [], {"id": "evt_1"}]


@pytest.mark.parametrize("value", NO_WORDS)
def test_id_that_is_no_word_is_refused(value):
    with pytest.raises(EventMalformed):
        read(SNAPSHOT | {"id": value})


@pytest.mark.parametrize(("name", "default"), [("type", "unknown"), ("api_version", None), ("account", None)])
@pytest.mark.parametrize("value", NO_WORDS)
def test_other_word_that_is_none_reads_as_default(name, value, default):
    assert read(SNAPSHOT | {name: value}) == msgspec.structs.replace(read(SNAPSHOT), **{name: default})


@pytest.mark.parametrize("value", [None, "false", 1, 0, []])
def test_livemode_of_another_kind_reads_as_live(value):
    assert read(SNAPSHOT | {"livemode": value}).livemode is True


def test_event_without_livemode_is_ignored_by_test_tenant():
    envelope = read(without(SNAPSHOT, "livemode"))

    assert (envelope.disposition("test"), envelope.disposition("live")) == ("ignored", "process")


TEXT = json.dumps(SNAPSHOT | {"livemode": False, "account": "acct_1"})
FULL = read_envelope(TEXT.encode())
BROKEN: dict[str, bytes] = {
    "lone surrogate": TEXT.replace("1999", '"\\ud83d"').encode(),
    "lone surrogate in a name": TEXT.replace('"amount"', '"\\udfff"').encode(),
    "unknown escape": TEXT.replace("1999", '"\\q\\""').encode(),
    "NUL byte": TEXT.replace("1999", '"\0"').encode(),
    "control character": TEXT.replace("1999", '"\n"').encode(),
    "not UTF-8": TEXT.replace("1999", '"?"').encode().replace(b"?", b"\xff"),
    "NaN": TEXT.replace("1999", "NaN").encode(),
    "exponent beyond a double": TEXT.replace("1999", "1e999999").encode(),
    "byte order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "garbage behind it": TEXT.encode() + b'} {"id": "evt_2"}',
    "last brace missing": TEXT[:-1].encode(),
    "trailing comma": TEXT[:-1].encode() + b",}",
    "100,000 lists": TEXT.replace("1999", "[" * 100_000 + "]" * 100_000).encode(),
    "100,000 objects": TEXT.replace("1999", '{"a":' * 100_000 + "1" + "}" * 100_000).encode(),
    "100,000 lists that do not close": (TEXT[:-1] + ', "more": ' + "[" * 100_000).encode(),
    "id twice, then a number": (TEXT[:-1] + ', "id": 7}').encode(),
    "name in escapes": TEXT.replace('"id": "evt_1"', '"\\u0069d": "evt\\u005f1"').replace("1999", "NaN").encode(),
    "missing value": ('{"id": , ' + TEXT[1:]).encode(),
    "colon behind a value": TEXT.replace('"evt_1",', '"evt_1":,').encode(),
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_body_that_is_no_json_reads_as_if_it_were(body):
    assert read_envelope(body) == FULL


@pytest.mark.parametrize("data", [[], 7, "ch_1", True, {"object": []}, {"object": 7}, {"object": ["id"]}])
def test_data_of_another_kind_has_no_object_id(data):
    assert read(SNAPSHOT | {"data": data}) == msgspec.structs.replace(read(SNAPSHOT), object_id=None)


def test_thin_body_that_is_no_json_reads_as_if_it_were():
    broken = json.dumps(THIN | {"reason": "?"}).replace("?", "\\ud800").encode()

    assert read_envelope(broken) == read(THIN)


def test_truncated_body_reads_as_far_as_it_goes():
    lengths = range(TEXT.index("evt_1") + len('evt_1"'), len(TEXT))

    envelopes = [read_envelope(TEXT[:length].encode()) for length in lengths]

    assert {envelope.event_id for envelope in envelopes} == {"evt_1"}
    assert {envelope.object_id for envelope in envelopes} == {None, "ch_1"}
    assert {envelope.type for envelope in envelopes} == {"unknown", "charge.succeeded"}


@pytest.mark.parametrize(
    "part",
    [b"[],", b'"",', b'"":0,', b'{"a":', b'"\\q', b'\\"', b'"id":"a",', b":", b" ", b'"a"      ', b"]", b'"a\\', b"\\", b"0 ", b"\xff"],
)
@pytest.mark.parametrize("place", [b'{"id": "evt_1", %b', b'{"id": "evt_1", "data": {"object": {%b'])
def test_scan_of_any_repetition_takes_linear_time(place, part):
    """Eight times the length takes 64 times the CPU time in a quadratic scan; 30 leaves room for noise."""

    def seconds(length: int) -> float:
        body = place % (part * (length // len(part)))
        return min(timeit.repeat(lambda: read_envelope(body), timer=time.process_time, number=1, repeat=5))

    assert seconds(800_000) < 30 * seconds(100_000) + 0.1


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_malformed(body):
    with pytest.raises(EventMalformed):
        read_envelope(body)


@given(st.binary(max_size=200))
def test_bytes_behind_an_id_never_hide_it(tail):
    assert read_envelope(b'{"id": "evt_1", "": ' + tail).event_id == "evt_1" or b'"id"' in tail
    assert read_envelope(b'{"id": "evt_1"' + tail).event_id == "evt_1" or b'"id"' in tail


@given(json_values())
def test_id_behind_any_json_value_is_found(value):
    text = json.dumps({"first": value, "second": "?", "id": "evt_1"})

    assert read_envelope(text.replace("?", "\\ud800").encode()).event_id == "evt_1"


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
    assert envelope.occurred_at is None or datetime(1, 1, 1, tzinfo=UTC) <= envelope.occurred_at.astimezone(UTC)


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
