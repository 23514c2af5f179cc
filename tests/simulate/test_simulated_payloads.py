from __future__ import annotations

import json

import pytest
from stripe import SignatureVerificationError, WebhookSignature

from billingwatch.simulate.payloads import charge_event_payloads
from billingwatch.simulate.signing import sign

SECRET = "whsec_made_up_for_this_test"
LONG = 10**12  # seconds; the signatures below are old


def test_a_signature_verifies_with_stripes_library():
    payload = '{"id":"evt_1","name":"Zoë"}'.encode()

    header = sign(payload, SECRET, 1_767_225_600)

    assert header.startswith("t=1767225600,v1=")
    assert WebhookSignature.verify_header(payload, header, SECRET, LONG)


def test_a_signature_fails_with_another_secret_or_body():
    header = sign(b"{}", SECRET, 1_767_225_600)

    with pytest.raises(SignatureVerificationError):
        WebhookSignature.verify_header(b"{}", header, "whsec_other", LONG)
    with pytest.raises(SignatureVerificationError):
        WebhookSignature.verify_header(b"{ }", header, SECRET, LONG)


@pytest.mark.parametrize("shape", ["legacy", "current"])
def test_every_body_is_a_charge_of_its_own(shape):
    bodies = list(charge_event_payloads(2000, seed=1, shape=shape, created=1_790_000_000, seconds=60))

    events = [json.loads(body) for body in bodies]
    charges = [event["data"]["object"] for event in events]
    assert all(3000 <= len(body) <= 4200 for body in bodies)
    assert {event["type"] for event in events} == {"charge.succeeded"}
    for ids in (
        {event["id"] for event in events},
        {charge["id"] for charge in charges},
        {charge["payment_intent"] for charge in charges},
        {charge["customer"] for charge in charges},
        {charge["payment_method_details"]["card"]["fingerprint"] for charge in charges},
    ):
        assert len(ids) == 2000
    assert ("invoice" in charges[0]) == (shape == "legacy")
    assert (events[0]["created"], events[-1]["created"], charges[-1]["created"]) == (1_790_000_000, 1_790_000_059, 1_790_000_059)


def test_bodies_repeat_with_their_seed_and_differ_without():
    assert list(charge_event_payloads(5, seed=1)) == list(charge_event_payloads(5, seed=1))
    assert not set(charge_event_payloads(5, seed=1)) & set(charge_event_payloads(5, seed=2))
