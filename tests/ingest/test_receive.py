"""One webhook, from its token to its commit: each reason for a refusal is told apart, and a refused one leaves nothing."""

from __future__ import annotations

import asyncio
import hmac
import sys
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from types import FrameType

import pytest

from billingwatch.api.body import EVENT_LIMIT
from billingwatch.errors import (
    EventMalformed,
    Overloaded,
    RateLimited,
    SignatureInvalid,
    TenantBeingRemoved,
    TenantUnconfigured,
    WebhookTokenUnknown,
)
from billingwatch.ingest.activity import Activity
from billingwatch.ingest.rate_limit import RateLimit
from billingwatch.ingest.receive import Receiver
from billingwatch.ingest.recorder import Recorded
from billingwatch.ingest.scan import read_members
from billingwatch.tenancy.lanes import Lane
from billingwatch.tenancy.provision import add_secret, list_secrets, remove_secret
from billingwatch.tenancy.registry import Registry

SECRET = "whsec_the_secret_of_acme"
ROLLED = "whsec_the_secret_after_the_roll"
OTHER = "whsec_the_secret_of_another"
T = 1_772_366_400
BODY = b'{"id": "evt_1", "object": "event", "type": "charge.succeeded", "created": 1772000000, "livemode": true, "name": "Zo\xc3\xab"}'
THIN = (
    b'{"id": "evt_3", "object": "v2.core.event", "type": "v1.charge.succeeded", "created": "2026-03-01T12:00:00.123Z", "livemode": true,'
    b' "snapshot_event": "evt_1", "related_object": {"id": "ch_1", "type": "charge", "url": "/v1/charges/ch_1"}}'
)
STORED = "SELECT event_id, deliveries FROM events ORDER BY event_id"


def sign(body: bytes = BODY, secret: str = SECRET, at: int = T) -> str:
    digest = hmac.new(secret.encode(), b"%d." % at + body, "sha256").hexdigest()
    return f"t={at},v1={digest}"


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.now.timestamp()


class Webhook:
    """Both steps of a delivery, as the endpoint makes them."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def receive(self, token: str, body: bytes, signature: str | None) -> Recorded:
        return await self._receiver.receive(await self._receiver.resolve(token), body, signature)


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime.fromisoformat("2026-03-01T12:00:00Z"))


@pytest.fixture
async def acme(provision_tenant):
    """(tenant, webhook token)"""
    tenant, handed_out = await provision_tenant("acme", secrets=(SECRET,))
    return tenant, handed_out.webhook_token


@pytest.fixture
async def make_receiver(database, seal, make_recorder, clock) -> AsyncIterator[Callable[..., Webhook]]:
    lanes: list[Lane] = []

    def make(dsn: str = database, *, per_second: int = 1000) -> Webhook:
        lanes.append(Lane(dsn, "tests registry"))
        registry = Registry(lanes[-1], seal, dsn)
        rate_limit = RateLimit(per_second=per_second, burst_seconds=1, monotonic=clock.monotonic)
        return Webhook(Receiver(registry, rate_limit, make_recorder(dsn=dsn), clock, Activity(lanes[-1], clock)))

    yield make
    for lane in lanes:
        await lane.close()


async def test_a_signed_event_is_committed_when_receive_returns(make_receiver, rows, pending, clock, acme):
    tenant, token = acme

    recorded = await make_receiver().receive(token, BODY, sign())

    assert recorded == Recorded(is_new=True)
    assert await rows(tenant, "SELECT event_id, payload, received_at, signed_at FROM events") == [
        ("evt_1", BODY.decode(), clock.now, clock.now)
    ]
    assert await pending() == [(tenant.tenant_id, "evt_1")]


async def test_a_retry_with_a_fresh_signature_is_the_same_event(make_receiver, rows, pending, clock, acme):
    tenant, token = acme
    receiver = make_receiver()
    await receiver.receive(token, BODY, sign())
    clock.now += timedelta(days=3)

    # Stripe signs every attempt anew, and what is left to deliver changes in the body.
    again = BODY.replace(b'"name"', b'"pending_webhooks": 0, "name"')
    recorded = await receiver.receive(token, again, sign(again, at=int(clock.now.timestamp())))

    assert recorded == Recorded(is_new=False)
    assert await rows(tenant, STORED) == [("evt_1", 2)]
    assert len(await pending()) == 1


async def test_an_unknown_token_is_told_apart_before_anything_else(make_receiver, acme):
    for token in ("", "unknown", acme[1][:-1], acme[1] + "/"):
        with pytest.raises(WebhookTokenUnknown):
            await make_receiver().receive(token, b"not even JSON", None)


async def test_without_a_good_signature_nothing_is_stored(make_receiver, rows, acme):
    tenant, token = acme
    receiver = make_receiver()

    for header in (None, "", "nonsense", f"t={T},v1={'0' * 64}"):
        with pytest.raises(SignatureInvalid):
            await receiver.receive(token, BODY, header)

    assert await rows(tenant, STORED) == []


async def test_another_tenants_secret_opens_nothing(make_receiver, rows, acme, provision_tenant):
    tenant, token = acme
    other, handed_out = await provision_tenant("other", secrets=(OTHER,))
    receiver = make_receiver()

    with pytest.raises(SignatureInvalid):
        await receiver.receive(handed_out.webhook_token, BODY, sign())
    with pytest.raises(SignatureInvalid):
        await receiver.receive(token, BODY, sign(secret=OTHER))

    assert await rows(tenant, STORED) == await rows(other, STORED) == []


async def test_the_same_event_for_two_tenants_is_two_events(make_receiver, rows, acme, provision_tenant):
    tenant, token = acme
    other, handed_out = await provision_tenant("other", secrets=(OTHER,))
    receiver = make_receiver()

    one = await receiver.receive(token, BODY, sign())
    two = await receiver.receive(handed_out.webhook_token, BODY, sign(secret=OTHER))

    assert one.is_new
    assert two.is_new
    assert await rows(tenant, STORED) == await rows(other, STORED) == [("evt_1", 1)]


async def test_an_old_or_early_signature_is_refused_by_the_clock_that_was_handed_in(make_receiver, rows, acme):
    tenant, token = acme
    receiver = make_receiver()

    for seconds in (-301, 301):
        with pytest.raises(SignatureInvalid):
            await receiver.receive(token, BODY, sign(at=T + seconds))

    assert await rows(tenant, STORED) == []


async def test_a_roll_takes_effect_with_the_next_look_at_the_tenant(make_receiver, control, seal, acme):
    _, token = acme
    await add_secret(control, seal, "acme", ROLLED)
    receiver = make_receiver()
    both = f"{sign()},{sign(secret=ROLLED).partition(',')[2]}"

    for header in (sign(), sign(secret=ROLLED), both):
        await receiver.receive(token, BODY, header)
    await remove_secret(control, "acme", (await list_secrets(control, "acme"))[0].secret_id)

    later = make_receiver()
    await later.receive(token, BODY, both)
    with pytest.raises(SignatureInvalid):
        await later.receive(token, BODY, sign())


async def test_a_tenant_without_a_secret_receives_nothing(make_receiver, rows, provision_tenant):
    tenant, handed_out = await provision_tenant(secrets=())

    for header in (None, sign(), sign(secret="")):
        with pytest.raises(TenantUnconfigured):
            await make_receiver().receive(handed_out.webhook_token, BODY, header)

    assert await rows(tenant, STORED) == []


async def test_tenant_being_removed_receives_nothing(make_receiver, rows, control, acme):
    tenant, token = acme
    await control.execute("UPDATE control.tenants SET status = 'removing'")

    with pytest.raises(TenantBeingRemoved):
        await make_receiver().receive(token, BODY, sign())

    assert await rows(tenant, STORED) == []


async def test_a_signed_body_that_is_no_event_is_malformed_and_not_stored(make_receiver, rows, acme):
    tenant, token = acme
    receiver = make_receiver()

    for body in (b"", b"hello", b"{}", b'{"id": 1}', BODY.replace(b'"id": "evt_1", ', b""), b"[" + BODY + b"]", b"\xff"):
        with pytest.raises(EventMalformed):
            await receiver.receive(token, body, sign(body))

    assert await rows(tenant, STORED) == []


async def test_body_that_is_not_utf_8_is_stored_as_its_bytes(make_receiver, rows, pending, acme):
    tenant, token = acme
    body = BODY.replace(b"\xc3\xab", b"\xeb")

    recorded = await make_receiver().receive(token, body, sign(body))

    assert recorded == Recorded(is_new=True)
    assert await rows(tenant, "SELECT event_id, payload, body FROM events") == [("evt_1", "null", body)]
    assert await pending() == [(tenant.tenant_id, "evt_1")]


async def test_large_body_is_read_and_stored_like_a_small_one(make_receiver, rows, acme):
    tenant, token = acme
    body = BODY[:-1] + b', "notes": "' + b"x" * (EVENT_LIMIT - len(BODY) - 13) + b'"}'

    await make_receiver().receive(token, body, sign(body))

    assert await rows(tenant, "SELECT event_id, type, payload FROM events") == [("evt_1", "charge.succeeded", body.decode())]


async def test_what_is_inside_is_not_told_to_who_cannot_sign(make_receiver, acme):
    with pytest.raises(SignatureInvalid):
        await make_receiver().receive(acme[1], b"not even JSON", sign())


async def test_above_its_rate_a_tenant_is_refused_and_later_admitted(make_receiver, rows, clock, acme):
    tenant, token = acme
    receiver = make_receiver(per_second=5)
    bodies = [BODY.replace(b"evt_1", f"evt_{number}".encode()) for number in range(8)]

    done = await asyncio.gather(*(receiver.receive(token, body, sign(body)) for body in bodies), return_exceptions=True)
    clock.now += timedelta(seconds=done[-1].facts["retry_after"])
    retried = await receiver.receive(token, bodies[-1], sign(bodies[-1]))

    assert [type(one) for one in done] == [Recorded] * 5 + [RateLimited] * 3
    assert retried.is_new
    assert len(await rows(tenant, STORED)) == 6


async def test_events_of_the_other_mode_of_unknown_types_and_thin_ones_are_all_stored(make_receiver, rows, pending, acme):
    tenant, token = acme
    receiver = make_receiver()
    bodies = [
        BODY.replace(b"charge.succeeded", b"nobody.knows_this"),
        BODY.replace(b"evt_1", b"evt_2").replace(b"true", b"false"),
        THIN,
    ]

    for body in bodies:
        assert (await receiver.receive(token, body, sign(body))).is_new

    assert await rows(tenant, "SELECT event_id, disposition FROM events ORDER BY event_id") == [
        ("evt_1", "process"),
        ("evt_2", "ignored"),
        ("evt_3", "needs_fetch"),
    ]
    assert await pending() == [(tenant.tenant_id, "evt_1")]


async def test_while_the_database_is_away_nothing_is_acknowledged_and_afterwards_everything_works(make_receiver, rows, road, acme):
    tenant, token = acme
    known, unknown = make_receiver(road.dsn), make_receiver(road.dsn)
    await known.receive(token, BODY, sign())

    await road.cut()
    for receiver in (known, unknown):
        with pytest.raises(Overloaded):
            await receiver.receive(token, BODY.replace(b"evt_1", b"evt_2"), sign(BODY.replace(b"evt_1", b"evt_2")))
    await road.mend()
    await asyncio.sleep(0.6)  # a lane that found the database away waits that long before it tries again
    for receiver in (known, unknown):
        await receiver.receive(token, BODY, sign())

    assert await rows(tenant, STORED) == [("evt_1", 3)]


async def test_large_malformed_bodies_are_scanned_one_at_a_time(make_receiver, acme):
    _, token = acme
    receiver = make_receiver()
    bodies = [b'{"id": "evt_large_%d", "type": "charge.succeeded", ' % number + b'"":0,' * 40_000 + b'"\\ud800"}' for number in range(4)]

    receiving = [asyncio.create_task(receiver.receive(token, body, sign(body))) for body in bodies]
    scans = 0
    while not all(each.done() for each in receiving):
        scans = max(scans, sum(read_members_runs(frame) for frame in sys._current_frames().values()))
        await asyncio.sleep(0)

    assert [recorded.is_new for recorded in await asyncio.gather(*receiving)] == [True] * 4
    assert scans == 1


def read_members_runs(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is read_members.__code__:
            return True
        frame = frame.f_back
    return False
