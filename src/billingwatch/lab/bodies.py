"""What the load process posts: unique events of about 3.5 KB, each signed for its tenant."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable, Iterator, Sequence
from random import Random

import msgspec

from billingwatch.simulate.payloads import charge_event_payloads

ALIKE = 512  # bodies cut from one stencil, which share `created`

_HEAD = (
    "POST /webhook/{token} HTTP/1.1\r\n"
    "Host: 127.0.0.1\r\n"
    "User-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\n"
    "Accept: */*; q=0.5, application/xml\r\n"
    "Cache-Control: no-cache\r\n"
    "Content-Type: application/json; charset=utf-8\r\n"
)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's webhook, and the secret that its events are signed with."""

    token: str
    secret: str


class Post(msgspec.Struct, frozen=True, gc=False):
    """One delivery, ready to be sent; `tenant` is an index of the targets."""

    tenant: int
    event_id: str
    request: bytes


class Addressed:
    """Makes requests to one target."""

    def __init__(self, target: Target) -> None:
        self._head = _HEAD.format(token=target.token).encode()
        self._secret = target.secret.encode()

    def request(self, body: bytes, signed_at: int) -> bytes:
        """The bytes of one delivery, as Stripe posts it."""
        header = signature_header(body, self._secret, signed_at)
        return b"%bContent-Length: %d\r\nStripe-Signature: %b\r\n\r\n%b" % (self._head, len(body), header, body)


def signature_header(body: bytes, secret: bytes, signed_at: int) -> bytes:
    """What `simulate.signing.sign` gives, at a third of its cost."""
    digest = hmac.digest(secret, b"%d.%b" % (signed_at, body), "sha256")
    return b"t=%d,v1=%b" % (signed_at, digest.hex().encode())


def posts(targets: Sequence[Target], choices: Iterable[int], *, seed: int) -> Iterator[Post]:
    """Give a delivery for each choice, signed when it is asked for."""
    addressed = [Addressed(target) for target in targets]
    for tenant, body in zip(choices, bodies(seed), strict=False):
        yield Post(tenant, event_id_of(body), addressed[tenant].request(body, int(time.time())))


def bodies(seed: int) -> Iterator[bytes]:
    """Events that occur as they are posted, without end; different seeds never give the same event."""
    seeds = Random(f"{seed}/bodies")
    while True:
        yield from charge_event_payloads(ALIKE, seed=seeds.getrandbits(62), created=int(time.time()))


def event_id_of(body: bytes) -> str:
    """The event's id, which is the first value in the body."""
    return body.split(b'"', 4)[3].decode()
