"""`POST /webhook/{token}`: a raw ASGI application, because it must see the exact bytes and is the hot path."""

from __future__ import annotations

import asyncio

import msgspec
from litestar import asgi
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Receive, Scope, Send

from billingwatch import errors, metrics
from billingwatch.api.body import Body, ClientGoneError
from billingwatch.api.problems import MEDIA_TYPE, Problem, problem_of
from billingwatch.ingest.receive import Receiver
from billingwatch.log_limit import LogLimit
from billingwatch.tenancy.tenants import Tenant

PATH = "/webhook"

_RECORDED = metrics.events.labels("recorded")
_DUPLICATED = metrics.events.labels("duplicate")

_OK = b'{"status":"ok"}'
_DUPLICATE = b'{"status":"ok","duplicate":true}'

_OUTCOMES = {
    400: "refused",
    404: "unknown_token",
    405: "refused",
    413: "refused",
    429: "rate_limited",
    503: "unavailable",
}
# After these the rest of the body is not worth reading, or the sender is not worth a connection.
_CLOSING = (errors.BodyTooLarge, errors.BodiesFull, errors.SignaturesLimited)

_failures = LogLimit()


async def receive_delivery(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 200 only after the event is committed; every other status tells Stripe to deliver it again."""
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
    content = Body(headers, receiver.bodies)
    tenant: Tenant | None = None
    try:
        tenant = await receiver.resolve(scope["path"].rstrip("/").rpartition("/")[2])
        body = await content.read(receive, tenant.tenant_id)
        signature = headers.get(b"stripe-signature")
        recorded = await receiver.receive(tenant, body, None if signature is None else signature.decode("latin-1"))
    except errors.BillingWatchError as error:
        receiver.activity.refused(tenant, error)
        problem, extra = problem_of(error)
        if isinstance(error, _CLOSING) or (content.may_be_large and not content.complete):
            extra["Connection"] = "close"
        return problem.status, msgspec.json.encode(problem), extra
    except ClientGoneError:
        raise
    except Exception as error:  # noqa: BLE001 - a defect here must be answered, and logged once a minute
        _failures.error("api.webhook_failed", cause=type(error).__name__, error=error)
        return _problem(500, "Internal error", {})
    finally:
        content.release()
    return 200, _OK if recorded.is_new else _DUPLICATE, {}


def _problem(status: int, title: str, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
    return status, msgspec.json.encode(Problem(status=status, title=title)), headers
