"""`POST /webhook/{token}`: a raw ASGI application, because it must see the exact bytes and is the hot path."""

from __future__ import annotations

import asyncio

import msgspec
import structlog
from litestar import asgi
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Receive, Scope, Send

from billingwatch import metrics
from billingwatch.api.problems import MEDIA_TYPE, Problem, problem_of
from billingwatch.errors import BillingWatchError
from billingwatch.ingest.receive import BODY_LIMIT, Receiver

log = structlog.get_logger()

PATH = "/webhook"

_RECORDED = metrics.events.labels("recorded")
_DUPLICATED = metrics.events.labels("duplicate")

DRAIN_LIMIT = 16 * BODY_LIMIT  # bytes of a body that is too large are read, and dropped, before the sender is cut off

_OK = b'{"status":"ok"}'
_DUPLICATE = b'{"status":"ok","duplicate":true}'

_OUTCOMES = {
    400: "refused",
    404: "unknown_token",
    403: "suspended",
    405: "refused",
    413: "refused",
    429: "rate_limited",
    503: "unavailable",
}


class BodyTooLargeError(Exception):
    """The body is larger than any event."""


class ClientGoneError(Exception):
    """The sender hung up before the body was complete."""


async def receive_delivery(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 200 only after the event is committed; everything else tells the sender to retry, or why not to."""
    if scope["type"] == ScopeType.WEBSOCKET:
        await send({"type": "websocket.close", "code": 1008, "reason": "POST only"})
        return
    began = asyncio.get_running_loop().time()
    receiver: Receiver = scope["litestar_app"].state.service.receiver
    try:
        status, body, headers = await _handle(receiver, scope, receive)
    except ClientGoneError:
        metrics.events.labels("client_gone").inc()
        return
    if status == 200:
        (_DUPLICATED if body is _DUPLICATE else _RECORDED).inc()
        metrics.acknowledgement.observe(asyncio.get_running_loop().time() - began)
    else:
        metrics.events.labels(_OUTCOMES.get(status, "error")).inc()
    raw_headers = [
        (b"content-type", (MEDIA_TYPE if status != 200 else "application/json").encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    raw_headers += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw_headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


webhook = asgi(PATH, is_mount=True, copy_scope=True, include_in_schema=False)(receive_delivery)


async def _handle(receiver: Receiver, scope: HTTPScope, receive: Receive) -> tuple[int, bytes, dict[str, str]]:
    if scope["method"] != "POST":
        return _problem(405, "Method not allowed", {"Allow": "POST"})
    headers = dict(scope["headers"])
    try:
        # Read first whatever the answer will be: a connection closed on an unread body is a transport failure to the sender.
        body = await _read_body(receive, headers.get(b"content-length"))
        signature = headers.get(b"stripe-signature")
        recorded = await receiver.receive(
            scope["path"].rstrip("/").rpartition("/")[2], body, None if signature is None else signature.decode("latin-1")
        )
    except BodyTooLargeError:
        return _problem(413, "Body too large", {"Connection": "close"})
    except BillingWatchError as error:
        problem, extra = problem_of(error)
        return problem.status, msgspec.json.encode(problem), extra
    except Exception:
        log.exception("api.webhook_failed")
        return _problem(500, "Internal error", {})
    return 200, _OK if recorded.is_new else _DUPLICATE, {}


async def _read_body(receive: Receive, declared: bytes | None) -> bytes:
    if declared is not None and declared.isdigit() and int(declared) > DRAIN_LIMIT:
        raise BodyTooLargeError
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        if message["type"] != "http.request":
            continue
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= BODY_LIMIT:
            chunks.append(chunk)
        # A sender whose connection is closed while it still writes sees a reset instead of the answer.
        if size > DRAIN_LIMIT or (size > BODY_LIMIT and not message.get("more_body", False)):
            raise BodyTooLargeError
        if not message.get("more_body", False):
            return b"".join(chunks)


def _problem(status: int, title: str, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
    return status, msgspec.json.encode(Problem(status=status, title=title)), headers
