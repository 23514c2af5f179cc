"""The OpenAPI document and its page.

The page's script and style are served from here, so that it works without the internet.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPI,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    PathItem,
    Reference,
    RequestBody,
    Responses,
    Schema,
    SecurityScheme,
)
from litestar.router import Router
from litestar.static_files import create_static_files_router

from billingwatch.api.problems import MEDIA_TYPE, TITLES, Problem

ASSETS = "/docs/assets"

EVERY_CALL = (400, 401, 429, 500, 503)  # statuses of errors that each call with an API key can answer
WITH_BODY = (413,)

# No API key: OpenAPI's way to exempt an operation from the document's `security`.
OPEN_TO_ALL: list[dict[str, list[str]]] = [{}]

WEBHOOK_PROBLEMS = (400, 403, 404, 413, 429, 500, 503)
_METHODS = ("get", "post", "patch", "delete")


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """Describe the errors of a call with an API key: those of every call, and these."""
    return only_problems(*EVERY_CALL, *statuses)


def only_problems(*statuses: int) -> dict[int, ResponseSpec]:
    """Describe these errors, and no others."""
    return {
        status: ResponseSpec(Problem, generate_examples=False, description=TITLES[status], media_type=MEDIA_TYPE)
        for status in sorted(statuses)
    }


def add_webhook(document: OpenAPI, path: str) -> None:
    """Describe the webhook, which is no route of Litestar's."""
    problem = Reference(ref="#/components/schemas/Problem")
    answers: Responses = {
        str(status): OpenAPIResponse(description=TITLES[status], content={MEDIA_TYPE: OpenAPIMediaType(schema=problem)})
        for status in WEBHOOK_PROBLEMS
    }
    recorded = Schema(
        type=OpenAPIType.OBJECT,
        required=["status"],
        properties={"status": Schema(const="ok"), "duplicate": Schema(const=True)},
    )
    answers["200"] = OpenAPIResponse(description="The event is stored", content={"application/json": OpenAPIMediaType(schema=recorded)})
    parameters: list[Parameter | Reference] = [
        Parameter(name="token", param_in="path", required=True, schema=Schema(type=OpenAPIType.STRING)),
        Parameter(name="Stripe-Signature", param_in="header", required=True, schema=Schema(type=OpenAPIType.STRING)),
    ]
    event = Schema(type=OpenAPIType.OBJECT, required=["id", "type"])
    operation = Operation(
        operation_id="ReceiveEvent",
        tags=["webhook"],
        summary="Record an event that Stripe delivers",
        parameters=parameters,
        request_body=RequestBody(content={"application/json": OpenAPIMediaType(schema=event)}, required=True),
        responses=answers,
        security=OPEN_TO_ALL,
    )
    document.paths = {**(document.paths or {}), f"{path}/{{token}}": PathItem(post=operation)}


def query_parameters(document: OpenAPI) -> dict[tuple[str, str], frozenset[str]]:
    """Return the names of each operation's query parameters, by path and method."""
    return {
        (path, method.upper()): frozenset(
            each.name for each in operation.parameters or () if isinstance(each, Parameter) and each.param_in == "query"
        )
        for path, item in (document.paths or {}).items()
        for method in _METHODS
        if (operation := getattr(item, method)) is not None
    }


def openapi_config(version: str) -> OpenAPIConfig:
    return OpenAPIConfig(
        title="BillingWatch",
        version=version,
        description="Anomalies in a tenant's Stripe billing. The API key decides the tenant.",
        path="/docs",
        components=Components(security_schemes={"api_key": SecurityScheme(type="http", scheme="bearer")}),
        security=[{"api_key": []}],
        render_plugins=[
            SwaggerRenderPlugin(
                path="/",
                js_url=f"{ASSETS}/swagger-ui-bundle.js",
                css_url=f"{ASSETS}/swagger-ui.css",
                standalone_preset_js_url=f"{ASSETS}/swagger-ui-standalone-preset.js",
                favicon='<link rel="icon" href="data:,">',
            )
        ],
    )


def assets_router() -> Router:
    """Swagger UI's files, from the package that carries them."""
    spec = find_spec("swagger_ui")
    if spec is None or spec.origin is None:
        message = "the package swagger-ui-py is not installed"
        raise ModuleNotFoundError(message)
    return create_static_files_router(path=ASSETS, directories=[Path(spec.origin).parent / "static"], include_in_schema=False)
