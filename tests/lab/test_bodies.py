from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import islice

from billingwatch.ingest.signature import verify
from billingwatch.lab.bodies import ALIKE, Addressed, Target, bodies, event_id_of, signature_header
from billingwatch.simulate.signing import sign

SECRET = "whsec_made_up_for_this_test"
AT = 1_767_225_600


def test_a_request_is_signed_as_stripe_signs():
    body = next(bodies(1))

    header = signature_header(body, SECRET.encode(), AT).decode()

    assert header == sign(body, SECRET, AT)
    assert verify(body.decode(), header, [SECRET], as_of=datetime.fromtimestamp(AT, UTC)) == datetime.fromtimestamp(AT, UTC)


def test_a_request_carries_its_body_to_the_tenants_url():
    body = b'{"id": "evt_1"}'

    request = Addressed(Target(token="tok", secret=SECRET)).request(body, AT)

    head, _, sent = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /webhook/tok HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
    assert sent == body


def test_bodies_are_events_of_stripes_size_and_no_two_are_the_same():
    made = [*islice(bodies(1), ALIKE * 2 + 1), *islice(bodies(2), ALIKE)]

    ids = [event_id_of(body) for body in made]
    assert ids == [json.loads(body)["id"] for body in made]
    assert len(set(ids)) == len(ids)
    assert all(3000 < len(body) < 4500 for body in made)
