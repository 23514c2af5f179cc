"""Errors → HTTP, once: which error is which status, all of them as RFC 9457 problem+json."""

from __future__ import annotations

from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from billingwatch import errors

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 5  # seconds; what a sender is told to wait while the database is away

STATUS: dict[type[errors.BillingWatchError], int] = {
    errors.SignatureInvalid: 400,
    errors.EventMalformed: 400,
    errors.InputInvalid: 400,
    errors.Unauthenticated: 401,
    errors.ApiKeyReadOnly: 403,
    errors.TenantNotFound: 404,
    errors.TenantBeingRemoved: 404,  # as after the removal: Stripe has to stop either way
    errors.WebhookTokenUnknown: 404,
    errors.EventNotFound: 404,
    errors.AnomalyNotFound: 404,
    errors.DetectorNotFound: 404,
    errors.MuteNotFound: 404,
    errors.AnomalyClosed: 409,
    errors.MutesFull: 409,
    errors.BodyTooLarge: 413,
    errors.ThresholdsInvalid: 422,
    errors.BacktestFailed: 422,
    errors.RateLimited: 429,
    errors.CallsExceeded: 429,
    errors.SignaturesLimited: 429,
    errors.BodiesFull: 503,
    errors.TenantUnconfigured: 503,
    errors.SecretKeyUnusable: 503,
    errors.TenantOutdated: 503,
    errors.Overloaded: 503,
    errors.LanesBusy: 503,
    errors.QueryTooSlow: 503,
    errors.DatabaseUnavailable: 503,
    errors.NotReady: 503,
}
TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Body too large",
    422: "Unprocessable content",
    429: "Too many requests",
    500: "Internal error",
    503: "Unavailable",
}


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457 problem details."""

    status: int
    title: str
    detail: str | None = None
    errors: list[dict[str, Any]] | None = None


def problem_of(error: errors.BillingWatchError) -> tuple[Problem, dict[str, str]]:
    """The problem and the headers that answer an error of ours; an error without a status is a defect: 500."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    headers: dict[str, str] = {}
    if status == 500:
        log.error("api.error_without_status", error=repr(error))
    if status in {429, 503}:
        headers["Retry-After"] = str(error.facts.get("retry_after", RETRY_AFTER))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    # A lost database's own words can name hosts and users: they belong in the log.
    detail = "the database is unavailable" if isinstance(error, errors.DatabaseUnavailable) else str(error)
    faults: Any = error.facts.get("faults")
    return Problem(status=status, title=TITLES[status], detail=detail, errors=faults if isinstance(faults, list) else None), headers


def answer_error(_: Request[Any, Any, Any], error: errors.BillingWatchError) -> Response[bytes]:
    problem, headers = problem_of(error)
    return _response(problem, headers)


def answer_http_exception(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    extra = [_told(fault) for fault in error.extra] if isinstance(error.extra, list) else None
    title = TITLES.get(error.status_code, "Error")
    problem = Problem(status=error.status_code, title=title, detail=error.detail or None, errors=extra)
    return _response(problem, dict(error.headers or {}))


def _told(fault: dict[str, Any]) -> dict[str, Any]:
    """Of what is missing Litestar says the name alone, in quotes."""
    missing = "key" in fault and fault.get("message") == repr(fault["key"])
    return {**fault, "message": "it is missing"} if missing else fault


def answer_exception(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    log.error("api.unexpected_error", path=request.url.path, exc_info=error)
    return _response(Problem(status=500, title=TITLES[500]), {})


def _response(problem: Problem, headers: dict[str, str]) -> Response[bytes]:
    return Response(msgspec.json.encode(problem), status_code=problem.status, headers=headers, media_type=MEDIA_TYPE)


EXCEPTION_HANDLERS: dict[int | type[Exception], Any] = {
    errors.BillingWatchError: answer_error,
    HTTPException: answer_http_exception,
    Exception: answer_exception,
}
