"""The OpenAPI document and its page; the page's script and style are served from here, so that it works without the internet."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.router import Router
from litestar.static_files import create_static_files_router

ASSETS = "/docs/assets"


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
