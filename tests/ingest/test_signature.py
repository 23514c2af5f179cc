"""Stripe's signature over every live secret, both ways in time, and nothing that only looks like one."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import time
from datetime import UTC, datetime

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from billingwatch.errors import SignatureInvalid, SignatureOutOfTime, TenantUnconfigured
from billingwatch.ingest.signature import HEADER_LIMIT, TOLERANCE, verify

BODY = '{"id": "evt_1", "amount": 1999}'
SECRET = "whsec_the_secret_of_this_tenant"
OTHER = "whsec_the_secret_of_another"
T = 1_700_000_000
NOW = datetime.fromtimestamp(T, UTC)


def sign(body: str = BODY, secret: str = SECRET, at: int = T) -> str:
    return stripe.WebhookSignature.generate_signature_header(payload=body, secret=secret, timestamp=at)


def v1(body: str = BODY, secret: str = SECRET, at: int = T) -> str:
    return sign(body, secret, at).partition(",")[2]


def test_stripes_own_signature_is_accepted_and_tells_when_it_was_made():
    assert verify(BODY, sign(), [SECRET], as_of=NOW) == NOW


@pytest.mark.parametrize("body", ['{"name": "Zoë 日本 🎉"}', '{"name": "\\u005a\\ud83c\\udf89"}', "", " \n", "\r\n{}\r\n", "\ufeff{}"])
def test_any_text_is_verified_as_it_is(body):
    assert verify(body, sign(body), [SECRET], as_of=NOW) == NOW


def test_a_body_that_differs_in_one_byte_is_refused():
    for body in (BODY + " ", BODY + "\n", BODY.replace("1999", "1998"), BODY.replace(": ", ":")):
        with pytest.raises(SignatureInvalid):
            verify(body, sign(), [SECRET], as_of=NOW)


@pytest.mark.parametrize(
    "header",
    [
        f"t={T},v1={'0' * 64},{v1()}",  # a roll: one v1 for each secret
        f"t={T},{v1()},v1={'0' * 64}",
        f"t={T},v1=bad,{v1()},v0=abc",
        f"v0=abc,{v1()},t={T}",
        f"t={T},v1=,{v1()}",
        f"t={T},v2={'0' * 64},{v1()}",
        f"t={T},{v1()},garbage",
    ],
)
def test_one_good_v1_among_others_is_enough(header):
    assert verify(BODY, header, [SECRET], as_of=NOW) == NOW


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        ",",
        "=",
        "nonsense",
        f"t={T}",
        f"t={T},",
        v1(),  # no t
        f"t=,{v1()}",
        f"t=abc,{v1()}",
        f"t=-{T},{v1()}",
        f"t=+{T},{v1()}",
        f"t={T}.0,{v1()}",
        f"t=1_700000000,{v1()}",  # int() would read it
        f"t= {T},{v1()}",
        f"t={T} ,{v1()}",
        f"t=\u0661\u0667{'0' * 8},{v1()}",  # int() reads other digits, too
        f"t={T * 10_000},{v1(at=T * 10_000)}",
        f" t={T},{v1()}",
        f"T={T},{v1()}",
        f"t={T},t={T},{v1()}",
        f"t={T},{v1()},t={T}",
        f"t={T - 1000},t={T},{v1(at=T - 1000)}",  # an old signature with a fresh time behind it
        f"t={T},t={T - 1000},{v1(at=T - 1000)}",
        f"t={T},{v1().replace('v1=', 'v0=')}",  # v0 is for tests
        f"t={T},{v1().replace('v1=', 'V1=')}",
        f"t={T},{v1().replace('v1=', 'v2=')}",
        f"t={T},v1={v1().removeprefix('v1=').upper()}",
        f"t={T}, {v1()}",
        f"t={T},{v1()} ",
        f"t={T};{v1()}",
        f"t={T},v1={v1().removeprefix('v1=')[:-1]}",
        f"t={T},v1={v1().removeprefix('v1=')}0",
        f"t={T},v1=",
        f"t={T},v1",
        f"t={T},{v1()},t",
        f"t={T},{v1()},v1=é",
        f"t={T},v1=é",
        f"t={T},v1=\udcff",
        f"t={T},v1=\0",
        f"t={T},{v1(secret=OTHER)}",  # another tenant's
        f"t={T},{v1(at=T + 1)}",  # signed for another time
        f"t={T},{v1(body='{}')}",
        f"t={T},{v1(secret=SECRET.removeprefix('whsec_'))}",  # the whole text is the key
    ],
)
def test_what_only_looks_like_a_signature_is_refused(header):
    with pytest.raises(SignatureInvalid):
        verify(BODY, header, [SECRET], as_of=NOW)


@given(st.text() | st.lists(st.sampled_from(["t", "v1", "v0", "=", ",", str(T), "0" * 64, " ", "é", v1()]), max_size=12).map("".join))
def test_no_header_raises_anything_but_a_refusal(header):
    try:
        signed_at = verify(BODY, header, [SECRET], as_of=NOW)
    except SignatureInvalid:
        return
    assert f"t={T}" in header
    assert v1() in header
    assert signed_at == NOW


def test_a_header_is_bounded_and_so_is_the_time_that_it_takes():
    def padded(length: int) -> str:
        header = f"t={T}," + f"v1={'0' * 64}," * 60
        return header[: length - len(v1()) - 1].rpartition(",")[0].ljust(length - len(v1()) - 1, "0") + "," + v1()

    longest, too_long = padded(HEADER_LIMIT), padded(HEADER_LIMIT + 1)
    assert (len(longest), len(too_long)) == (4096, 4097)
    many = f"t={T}," + ",".join([f"v1={'0' * 64}"] * 100_000)

    assert verify(BODY, longest, [SECRET], as_of=NOW) == NOW
    with pytest.raises(SignatureInvalid):
        verify(BODY, too_long, [SECRET], as_of=NOW)
    began = time.perf_counter()
    with pytest.raises(SignatureInvalid):
        verify(BODY, many, [SECRET, OTHER], as_of=NOW)
    assert time.perf_counter() - began < 0.1


@pytest.mark.parametrize("seconds", [0, 1, -1, TOLERANCE, -TOLERANCE])
def test_a_signature_within_the_tolerance_is_accepted(seconds):
    at = T + seconds

    assert verify(BODY, sign(at=at), [SECRET], as_of=NOW) == datetime.fromtimestamp(at, UTC)


@pytest.mark.parametrize("seconds", [TOLERANCE + 1, -TOLERANCE - 1, 86_400, -3 * 86_400, -T])
def test_a_signature_beyond_the_tolerance_is_refused_in_the_past_and_in_the_future(seconds):
    with pytest.raises(SignatureInvalid):
        verify(BODY, sign(at=T + seconds), [SECRET], as_of=NOW)


@pytest.mark.parametrize(("seconds", "words"), [(412, "412 s after"), (-412, "412 s before")])
def test_good_signature_out_of_time_names_the_difference(seconds, words):
    with pytest.raises(SignatureOutOfTime, match=words):
        verify(BODY, sign(at=T + seconds), [SECRET], as_of=NOW)


def test_bad_signature_out_of_time_is_only_invalid():
    with pytest.raises(SignatureInvalid) as refused:
        verify(BODY, sign(secret=OTHER, at=T - 412), [SECRET], as_of=NOW)

    assert not isinstance(refused.value, SignatureOutOfTime)


def test_the_tolerance_is_five_minutes_to_the_second_below_which_fractions_count():
    with pytest.raises(SignatureInvalid):
        verify(BODY, sign(), [SECRET], as_of=datetime.fromtimestamp(T + TOLERANCE + 0.5, UTC))

    assert TOLERANCE == 300


@pytest.mark.parametrize("secrets", [[SECRET], [OTHER, SECRET], [SECRET, OTHER]])
def test_during_a_roll_each_live_secret_verifies(secrets):
    assert verify(BODY, sign(), secrets, as_of=NOW) == NOW


def test_after_a_roll_the_old_secret_is_refused():
    both = f"t={T},{v1(secret=OTHER)},{v1()}"

    assert verify(BODY, both, [SECRET], as_of=NOW) == NOW
    with pytest.raises(SignatureInvalid):
        verify(BODY, sign(secret=OTHER), [SECRET], as_of=NOW)


def test_without_a_secret_nothing_is_verified():
    with pytest.raises(TenantUnconfigured):
        verify(BODY, sign(), [], as_of=NOW)


@pytest.mark.parametrize("empty", ["", " ", "\t\n"])
def test_an_empty_secret_verifies_nothing_although_anybody_could_sign_with_it(empty):
    forged = sign(secret=empty)

    with pytest.raises(SignatureInvalid):
        verify(BODY, forged, [empty], as_of=NOW)
    assert verify(BODY, sign(), [empty, SECRET], as_of=NOW) == NOW


LATIN = b'{"id": "evt_1", "name": "Zo\xeb"}'  # not UTF-8


def sign_bytes(body: bytes = LATIN, secret: str = SECRET, at: int = T) -> str:
    """Sign as Stripe documents it: HMAC-SHA256 of the time, a dot and the bytes of the body."""
    return f"t={at},v1={hmac.new(secret.encode(), str(at).encode() + b'.' + body, hashlib.sha256).hexdigest()}"


def test_signature_over_bytes_equals_the_librarys_where_both_exist():
    assert sign_bytes(BODY.encode()) == sign(BODY)


@pytest.mark.parametrize("body", [LATIN, b"\xff", b"\xff\xfe{\0}\0", b"\xed\xa0\xbd", b"\x80" * 100_000])
def test_body_that_is_not_utf_8_is_verified_over_its_bytes(body):
    assert verify(body, sign_bytes(body), [OTHER, SECRET], as_of=NOW) == NOW


@pytest.mark.parametrize("body", [LATIN + b" ", LATIN.replace(b"\xeb", b"\xec"), LATIN.decode("latin-1").encode(), b"\xff"])
def test_other_bytes_than_the_signed_are_refused(body):
    with pytest.raises(SignatureInvalid):
        verify(body, sign_bytes(), [SECRET], as_of=NOW)


@pytest.mark.parametrize("seconds", [TOLERANCE + 1, -TOLERANCE - 1])
def test_signature_over_bytes_beyond_the_tolerance_is_refused(seconds):
    with pytest.raises(SignatureInvalid):
        verify(LATIN, sign_bytes(at=T + seconds), [SECRET], as_of=NOW)


@pytest.mark.parametrize("empty", ["", " ", "\t\n"])
def test_empty_secret_verifies_no_bytes(empty):
    with pytest.raises(SignatureInvalid):
        verify(LATIN, sign_bytes(secret=empty), [empty], as_of=NOW)


PARTS = ["t", "v1", "v0", "=", ",", f"t={T},", f"t={T}", "v1=" + "0" * 64, " ", "é", "garbage", "GOOD", "GOOD=x", ",GOOD"]


@given(st.lists(st.sampled_from(PARTS), max_size=8).map("".join))
def test_headers_over_bytes_follow_the_rules_of_the_library(header):
    """The same header, once with the signature of a UTF-8 body for the library and once with that of bytes."""
    verified = []
    for body, good in ((BODY, v1()), (LATIN, sign_bytes().partition(",")[2])):
        with contextlib.suppress(SignatureInvalid):
            verify(body, header.replace("GOOD", good), [SECRET], as_of=NOW)
            verified.append(body)

    assert verified in ([], [BODY, LATIN])
