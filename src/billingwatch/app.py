"""The HTTP service: `create_app()` puts the routes and one Service together."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.types import LifeSpanReceive, LifeSpanScope, LifeSpanSend, Receive, Scope, Send

from billingwatch.api.access import authenticate, granted_access
from billingwatch.api.anomalies import acknowledge_anomaly, list_anomalies_page, mark_false_positive, resolve_anomaly, show_anomaly
from billingwatch.api.detectors import backtest_detector, list_detectors, set_detector, show_detector, show_stats
from billingwatch.api.events import list_events_page, show_event
from billingwatch.api.health import live, metrics, ready
from billingwatch.api.methods import as_get, name_allowed_methods
from billingwatch.api.mutes import create_mute, delete_mute, list_all_mutes
from billingwatch.api.openapi import assets_routes, openapi_config, query_parameters
from billingwatch.api.problems import EXCEPTION_HANDLERS
from billingwatch.api.requests import BODY_LIMIT, ApiRequest
from billingwatch.api.webhook import PATH, receive_delivery, webhook
from billingwatch.gate import Gate
from billingwatch.ingest.rate_limit import Buckets, SharedBuckets
from billingwatch.logs import configure_logs, protect_stderr
from billingwatch.parent_process import end_with_parent
from billingwatch.postgres.database import open_database
from billingwatch.release import release
from billingwatch.server.connections import STATE_KEY, Connections
from billingwatch.server.limits import Limits, connections_within, raise_files_limit
from billingwatch.service import Service
from billingwatch.settings import Settings, load_settings
from billingwatch.supervision import SupervisedTask

RUN_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # environment: directory of all server processes of a run


class App(Litestar):
    """Litestar with a short cut: routing and wrapping a delivery, which the webhook does without, cost a fifth of a delivery's time here."""

    connections: Connections
    gates: Gates

    async def __call__(self, scope: Scope | LifeSpanScope, receive: Receive | LifeSpanReceive, send: Send | LifeSpanSend) -> None:
        if scope["type"] == "lifespan":
            # The server hands this state to each connection.
            cast(dict[str, Any], scope).setdefault("state", {})[STATE_KEY] = self.connections
        elif scope["path"].startswith(f"{PATH}/"):
            scope["litestar_app"] = self
            await receive_delivery(scope, cast(Receive, receive), cast(Send, send))
            return
        elif (gate := self.gates.of(scope["path"])) is not None:
            await gate.enter()
        await super().__call__(as_get(scope), receive, send)


class Gates:
    """The gates of paths that need no API key. A flood at one does not delay the other."""

    def __init__(self, tenant_paths: frozenset[str]) -> None:
        self._tenant_paths = tenant_paths
        self._health = Gate()
        self._others = Gate()

    def of(self, path: str) -> Gate | None:
        """Return the gate of a path; None for calls with an API key, whose strangers `access` holds back."""
        first = path.split("/", 2)[1] if path.startswith("/") else ""
        if first in self._tenant_paths:
            return None
        return self._health if first == "health" else self._others


def create_app(
    settings: Settings,
    dsn: str,
    *,
    processing: bool = True,
    make_service: Callable[..., Service] = Service,
    buckets: Buckets | None = None,
    limits: Limits | None = None,
) -> Litestar:
    """The application over a database that is there; its Service lives as long as the server."""
    connections = Connections(limits or _limits(settings))
    sweep = SupervisedTask("connections", connections.run)

    @asynccontextmanager
    async def serve(app: Litestar) -> AsyncIterator[None]:
        service = make_service(settings, dsn, processing=processing, buckets=buckets)
        await service.start()
        sweep.start()
        app.state.service = service
        try:
            yield
        finally:
            await sweep.stop()
            await service.close()

    tenant_routes = Router(
        path="/",
        route_handlers=[
            list_anomalies_page,
            show_anomaly,
            acknowledge_anomaly,
            resolve_anomaly,
            mark_false_positive,
            list_detectors,
            show_detector,
            set_detector,
            backtest_detector,
            show_stats,
            list_all_mutes,
            create_mute,
            delete_mute,
            list_events_page,
            show_event,
        ],
        dependencies={"access": Provide(granted_access, sync_to_thread=False)},
        guards=[authenticate],
        request_class=ApiRequest,
    )
    app = App(
        route_handlers=[webhook, live, ready, metrics, tenant_routes, *assets_routes()],
        lifespan=[serve],
        exception_handlers=EXCEPTION_HANDLERS,
        openapi_config=openapi_config(release()),
        logging_config=None,
        before_send=[name_allowed_methods],
        request_max_body_size=BODY_LIMIT,
    )
    app.state.query_parameters = query_parameters(app.openapi_schema.to_schema())
    app.connections = connections
    app.gates = Gates(frozenset(route.path.split("/")[1] for route in tenant_routes.routes))
    return app


def _limits(settings: Settings) -> Limits:
    lanes = settings.ingest_lanes + settings.work_lanes + settings.read_lanes
    return Limits(connections=connections_within(settings.connections_limit, raise_files_limit(), database_connections=2 * lanes))


def create_app_of_worker() -> Litestar:
    """The application of one of several server processes: settings from the environment, processing elsewhere."""
    if (parent := multiprocessing.parent_process()) is not None and parent.pid is not None:
        end_with_parent(parent.pid)
    settings = load_settings()
    configure_logs(log_format=settings.log_format, log_level=settings.log_level)
    protect_stderr()
    shared = os.environ.get(RUN_DIRECTORY)
    buckets = SharedBuckets(Path(shared) / "rate_limits") if shared else None
    return create_app(settings, open_database(settings).dsn, processing=False, buckets=buckets)
