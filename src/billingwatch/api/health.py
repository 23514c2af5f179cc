"""Health for load balancers, metrics for Prometheus. They name no tenant and need no key."""

from typing import Any

import msgspec
from litestar import MediaType, Request, Response, get
from prometheus_client import CONTENT_TYPE_LATEST

from billingwatch.api.openapi import OPEN_TO_ALL, only_problems
from billingwatch.service import Service


class Health(msgspec.Struct, frozen=True):
    status: str


@get("/health/live", tags=["health"], summary="The process answers", security=OPEN_TO_ALL, responses=only_problems(500))
async def live() -> Health:
    return Health("ok")


@get(
    "/health/ready",
    tags=["health"],
    summary="Events are recorded and processed; 503 says why not",
    security=OPEN_TO_ALL,
    responses=only_problems(500, 503),
)
async def ready(request: Request[Any, Any, Any]) -> Health:
    service: Service = request.app.state.service
    await service.readiness.check()
    return Health("ok")


@get(
    "/metrics",
    tags=["health"],
    summary="Prometheus metrics",
    media_type=MediaType.TEXT,
    security=OPEN_TO_ALL,
    responses=only_problems(500),
)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    service: Service = request.app.state.service
    return Response(await service.exposition.text(), headers={"content-type": CONTENT_TYPE_LATEST})
