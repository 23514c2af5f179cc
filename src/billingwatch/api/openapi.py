"""The OpenAPI document and its page.

The page's script and style are served from here, so that it works without the internet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from litestar import get
from litestar.datastructures import CacheControlHeader
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components, OpenAPI, SecurityScheme

from billingwatch.api.problems import MEDIA_TYPE, TITLES, Problem

ASSETS = "/docs/assets"
ASSET_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-standalone-preset.js": "text/javascript",
    "swagger-ui.css": "text/css",
}

EVERY_CALL = (400, 401, 429, 500, 503)  # statuses of errors that each call with an API key can answer
WRITING = (403,)  # statuses that calls which a read-only key may not make can answer, too
WITH_BODY = (*WRITING, 413)

# No API key: OpenAPI's way to exempt an operation from the document's `security`.
OPEN_TO_ALL: list[dict[str, list[str]]] = [{}]

WEBHOOK_PROBLEMS = (400, 404, 413, 429, 500, 503)
WEBHOOK_PATH = "/webhook/{token}"


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """Describe the errors of a call with an API key: those of every call, and these."""
    return only_problems(*EVERY_CALL, *statuses)


def only_problems(*statuses: int) -> dict[int, ResponseSpec]:
    """Describe these errors, and no others."""
    return {
        status: ResponseSpec(
            Problem,
            generate_examples=False,
            description=TITLES[status],
            media_type=MEDIA_TYPE,
        )
        for status in sorted(statuses)
    }


class Document(OpenAPI):
    """Litestar's document, corrected where it differs from what the service does."""

    def to_schema(self) -> dict[str, Any]:
        document = super().to_schema()
        document["paths"][WEBHOOK_PATH] = {"post": _webhook()}
        for operation in operations(document).values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                name = content["schema"].get("$ref", "").rpartition("/")[2]
                if name:
                    document["components"]["schemas"][name]["additionalProperties"] = False
        _any_instead_of_one(document)
        return document


class DocumentConfig(OpenAPIConfig):
    def to_openapi_schema(self) -> OpenAPI:
        made = super().to_openapi_schema()
        return Document(**{field.name: getattr(made, field.name) for field in fields(made)})


def operations(document: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the operations of a document by path and method."""
    return {
        (path, method.upper()): item[method]
        for path, item in document["paths"].items()
        for method in ("get", "post", "patch", "delete")
        if method in item
    }


def query_parameters(document: Mapping[str, Any]) -> dict[tuple[str, str], frozenset[str]]:
    """Return the names of each operation's query parameters, by path and method."""
    return {
        where: frozenset(each["name"] for each in operation.get("parameters", []) if each["in"] == "query")
        for where, operation in operations(document).items()
    }


def _webhook() -> dict[str, Any]:
    text, problem = {"type": "string"}, {"schema": {"$ref": "#/components/schemas/Problem"}}
    recorded = {
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"const": "ok"}, "duplicate": {"const": True}},
    }
    event = {"type": "object", "required": ["id", "type"], "properties": {"id": text, "type": text}}
    return {
        "operationId": "ReceiveEvent",
        "tags": ["webhook"],
        "summary": "Record an event that Stripe delivers",
        "security": OPEN_TO_ALL,
        "parameters": [
            {"name": "token", "in": "path", "required": True, "schema": text},
            {"name": "Stripe-Signature", "in": "header", "required": True, "schema": text},
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": event}}},
        "responses": {
            "200": {
                "description": "The event is stored",
                "content": {"application/json": {"schema": recorded}},
            },
            **{str(each): {"description": TITLES[each], "content": {MEDIA_TYPE: problem}} for each in WEBHOOK_PROBLEMS},
        },
    }


def _any_instead_of_one(part: object) -> None:
    """Replace `oneOf` by `anyOf`: a whole number is valid as an integer and as a number."""
    if isinstance(part, dict):
        if "oneOf" in part:
            part["anyOf"] = part.pop("oneOf")
        for each in part.values():
            _any_instead_of_one(each)
    elif isinstance(part, list):
        for each in part:
            _any_instead_of_one(each)


def openapi_config(version: str) -> OpenAPIConfig:
    return DocumentConfig(
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


def assets_routes() -> list[HTTPRouteHandler]:
    """Return a route for each file of Swagger UI that the page loads, from the package that carries them."""
    spec = find_spec("swagger_ui")
    if spec is None or spec.origin is None:
        message = "the package swagger-ui-py is not installed"
        raise ModuleNotFoundError(message)
    directory = Path(spec.origin).parent / "static"
    return [_asset_route(name, media_type, (directory / name).read_bytes()) for name, media_type in ASSET_TYPES.items()]


def _asset_route(name: str, media_type: str, content: bytes) -> HTTPRouteHandler:
    """Serve `content` from memory: all answers share these bytes, so that many slow readers hold one copy."""

    @get(f"{ASSETS}/{name}", name=name, include_in_schema=False, media_type=media_type, cache_control=CacheControlHeader(max_age=3600))
    async def send_asset() -> bytes:
        return content

    return send_asset
